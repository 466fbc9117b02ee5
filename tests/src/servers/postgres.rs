//! `PostgreSQL`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::find;
use super::process::{Kind, ServerProcess, as_user, user_ids};

const USER: &str = "postgres";

/// A `PostgreSQL` server.
#[derive(Debug)]
pub struct PostgresServer(pub(super) ServerProcess);

impl PostgresServer {
    /// Starts one. It is told not to wait for the disk: what a killed process has written the kernel
    /// still has.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these settings.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let kind = Kind { program: "postgres", user: Some(USER), arguments, answers };
        let more =
            settings.iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}")]);
        Self(ServerProcess::start(kind, data(), more.collect()))
    }

    /// Its URL, as the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(USER, None, "postgres")
    }

    /// The URL for another user or database.
    #[must_use]
    pub fn url_of(&self, user: &str, password: Option<&str>, database: &str) -> String {
        let password = password.map(|password| format!(":{password}")).unwrap_or_default();
        format!("postgres://{user}{password}@127.0.0.1:{}/{database}", self.0.port())
    }
}

/// A data directory: a copy of the one that `initdb` has made once for all.
fn data() -> TempDir {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| {
        let folder = open_folder();
        run(
            "initdb",
            &["-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"],
            &folder.path().join("data"),
        );
        folder
    });
    let folder = open_folder();
    super::process::copy(&template.path().join("data"), &folder.path().join("data"));
    folder
}

/// A directory that the server's own user may use.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
        .expect("a directory of ours");
    if let Some((user, group)) = user_ids(USER) {
        std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).expect("we are root");
    }
    folder
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let path = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
    let mut command = Command::new(path);
    command.args(arguments).arg(folder).current_dir("/").stdin(Stdio::null());
    as_user(&mut command, Some(USER));
    let output = command.output().expect("a program that can be run");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn arguments(port: u16, folder: &Path) -> Vec<String> {
    let data = folder.join("data").display().to_string();
    let mut arguments = vec!["-D".into(), data.clone(), "-p".into(), port.to_string()];
    for setting in [
        "listen_addresses=127.0.0.1",
        &format!("unix_socket_directories={data}"),
        "fsync=off",
        "max_connections=300",
        "shared_preload_libraries=pg_stat_statements",
    ] {
        arguments.extend(["-c".into(), setting.into()]);
    }
    arguments
}

/// Begins a session; while the server starts or recovers it answers with an error.
fn answers(mut stream: TcpStream) -> std::io::Result<bool> {
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(parameters.len() + 8).expect("short");
    let protocol = 3_u32 << 16;
    stream
        .write_all(&[&length.to_be_bytes(), &protocol.to_be_bytes(), &parameters[..]].concat())?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let answered = kind == *b"R";
    // A farewell, so that the session is not counted for long.
    stream.write_all(b"X\0\0\0\x04")?;
    Ok(answered)
}
