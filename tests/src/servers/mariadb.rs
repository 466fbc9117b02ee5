//! `MariaDB`, which speaks MySQL's protocol.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::find;
use super::process::{Kind, ServerProcess, copy};

/// The database that is there from the start.
const DATABASE: &str = "dlock";

/// A `MariaDB` server.
#[derive(Debug)]
pub struct MariaDbServer(pub(super) ServerProcess);

impl MariaDbServer {
    /// Starts one.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these options, such as `("innodb-rollback-on-timeout", "ON")`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with(options: &[(&str, &str)]) -> Self {
        let kind = Kind { program: "mariadbd", user: None, arguments, answers };
        let more = options.iter().map(|(name, value)| format!("--{name}={value}")).collect();
        Self(ServerProcess::start(kind, data(), more))
    }

    /// Its URL, as the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("root", None, DATABASE)
    }

    /// The URL for another user or database.
    #[must_use]
    pub fn url_of(&self, user: &str, password: Option<&str>, database: &str) -> String {
        let password = password.map(|password| format!(":{password}")).unwrap_or_default();
        format!("mysql://{user}{password}@127.0.0.1:{}/{database}", self.0.port())
    }
}

/// A data directory: a copy of the one that was made once for all.
fn data() -> TempDir {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let data = folder.path().join("data");
        install(&data);
        // For MariaDB an empty directory is a database.
        std::fs::create_dir(data.join(DATABASE)).expect("a directory of ours");
        folder
    });
    let folder = tempfile::tempdir().expect("a temporary directory");
    copy(&template.path().join("data"), &folder.path().join("data"));
    folder
}

fn install(data: &Path) {
    let program = find("mariadb-install-db").expect("mariadb-install-db is not installed");
    let output = Command::new(program)
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .arg(format!("--datadir={}", data.display()))
        .args(user())
        .stdin(Stdio::null())
        .output()
        .expect("a program that can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// It may run as root if that is said; the directory is then ours.
fn user() -> Option<&'static str> {
    rustix::process::getuid().is_root().then_some("--user=root")
}

fn arguments(port: u16, folder: &Path) -> Vec<String> {
    let data = folder.join("data");
    let mut arguments = vec!["--no-defaults".to_owned()];
    arguments.extend(user().map(str::to_owned));
    arguments.extend([
        format!("--datadir={}", data.display()),
        format!("--socket={}", data.join("s.sock").display()),
        format!("--pid-file={}", data.join("server.pid").display()),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--skip-name-resolve".to_owned(),
        "--max-connections=300".to_owned(),
        // The kernel has what a killed process has written.
        "--innodb-flush-log-at-trx-commit=2".to_owned(),
        "--innodb-log-file-size=4M".to_owned(),
    ]);
    arguments
}

/// The server speaks first: a handshake of version 10, or an error while it starts.
fn answers(mut stream: TcpStream) -> std::io::Result<bool> {
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting)?;
    Ok(greeting[4] == 10)
}
