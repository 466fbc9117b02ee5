//! PostgreSQL.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::data::{Template, complete, run_as};
use super::program;
use super::server::{Kind, Server};

/// A PostgreSQL server. Its superuser is `postgres`. Connections from this machine need no
/// password.
pub type PostgresServer = Server<Postgres>;

/// The parameters of a [`PostgresServer`].
#[derive(Debug)]
pub struct Postgres {
    settings: Vec<(String, String)>,
}

/// The user it runs as if the tests run as root.
const USER: &str = "postgres";

static TEMPLATE: Template = Template::new();

impl PostgresServer {
    /// Starts a server.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with these settings, which override the defaults for tests.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let settings = settings.iter().map(owned).collect();
        Self::launch(Postgres { settings }, TEMPLATE.unpack(USER, initialise))
    }

    /// The URL of the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres", None, "postgres")
    }

    /// The URL of a user. The parts are not encoded, so they must not contain special characters.
    #[must_use]
    pub fn url_of(&self, user: &str, password: Option<&str>, database: &str) -> String {
        let password = password.map(|password| format!(":{password}")).unwrap_or_default();
        format!("postgres://{user}{password}@127.0.0.1:{}/{database}", self.port())
    }
}

fn initialise(folder: &Path) {
    let mut initdb = run_as(USER, &program("initdb").expect("PostgreSQL is installed"));
    initdb.arg("-D").arg(folder).args(["-U", "postgres", "--auth=trust", "--no-sync"]);
    complete(initdb.args(["--encoding=UTF8", "--locale=C"]).current_dir(folder));
}

impl Kind for Postgres {
    fn command(&self, folder: &Path, port: u16) -> Command {
        let program = program("postgres").expect("PostgreSQL is installed");
        let mut command = run_as(USER, &program);
        command.arg("-D").arg(folder).args(["-p", &port.to_string()]);
        let mut set = |name: &str, value: &str| {
            command.args(["-c", &format!("{name}={value}")]);
        };
        set("listen_addresses", "127.0.0.1");
        set("unix_socket_directories", &folder.display().to_string());
        set("max_connections", "500");
        // A kill loses nothing that has reached the kernel.
        set("fsync", "off");
        // In the directory, which is removed, rather than in /dev/shm, where a kill would leave it
        // behind.
        set("dynamic_shared_memory_type", "mmap");
        if has_statement_counters(&program) {
            set("shared_preload_libraries", "pg_stat_statements");
        }
        for (name, value) in &self.settings {
            set(name, value);
        }
        command
    }

    /// A server that is starting or recovering answers a startup message with an error. A server
    /// that is ready asks for credentials or for the first query.
    fn answers(port: u16) -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let introduction = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(introduction.len() + 4).expect("it is short");
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(introduction)?;
        loop {
            match message(&mut stream)? {
                (b'Z', _) => return Ok(true),
                (b'R', body) if body != [0; 4] => return Ok(true),
                (b'E', _) => return Ok(false),
                _ => {}
            }
        }
    }

    /// Removes the server's System V shared memory segment. A machine has only a few thousand of
    /// them, and only an orderly shutdown removes one. Its id is the last word of the seventh line.
    fn clean_up(folder: &Path) {
        let pid_file = fs::read_to_string(folder.join("postmaster.pid")).unwrap_or_default();
        if let Some(segment) =
            pid_file.lines().nth(6).and_then(|line| line.split_whitespace().next_back())
        {
            let mut remove = Command::new("ipcrm");
            remove.args(["-m", segment]).stdout(Stdio::null()).stderr(Stdio::null());
            let _ = remove.status();
        }
    }
}

/// Whether the library of `pg_stat_statements` is installed. On Debian it comes with the server.
fn has_statement_counters(program: &Path) -> bool {
    let library = "../lib/pg_stat_statements.so";
    program.parent().is_some_and(|folder| folder.join(library).is_file())
}

/// A message: its kind and its body.
fn message(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u64::from(u32::from_be_bytes(length)).saturating_sub(4);
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body)?;
    Ok((kind, body))
}
