//! MariaDB.

use std::io::{self, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::data::{Template, complete, run_as};
use super::program;
use super::server::{Kind, Server};

/// A MariaDB server. Its superuser is `root`, without a password. It has a database `dlock`.
pub type MariaDbServer = Server<MariaDb>;

/// The parameters of a [`MariaDbServer`].
#[derive(Debug)]
pub struct MariaDb {
    settings: Vec<(String, String)>,
}

/// The user it runs as if the tests run as root.
const USER: &str = "mysql";

static TEMPLATE: Template = Template::new();

impl MariaDbServer {
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
        Self::launch(MariaDb { settings }, TEMPLATE.unpack(USER, initialise))
    }

    /// The URL of the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("root", None, "dlock")
    }

    /// The URL of a user. The parts are not encoded, so they must not contain special characters.
    #[must_use]
    pub fn url_of(&self, user: &str, password: Option<&str>, database: &str) -> String {
        let password = password.map(|password| format!(":{password}")).unwrap_or_default();
        format!("mysql://{user}{password}@127.0.0.1:{}/{database}", self.port())
    }
}

fn initialise(folder: &Path) {
    let install = program("mariadb-install-db").expect("MariaDB is installed");
    let mut install = run_as(USER, &install);
    install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    install.arg(format!("--datadir={}", folder.display()));
    complete(install.env("TMPDIR", folder).current_dir(folder));
    // To MariaDB, an empty directory is an empty database.
    complete(run_as(USER, Path::new("mkdir")).arg(folder.join("dlock")));
}

impl Kind for MariaDb {
    fn command(&self, folder: &Path, port: u16) -> Command {
        let mut command = run_as(USER, &program("mariadbd").expect("MariaDB is installed"));
        let folder = folder.display();
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
        command.args([format!("--datadir={folder}"), format!("--socket={folder}/s.sock")]);
        // A starting server deletes the temporary tables of all servers that share its tmpdir.
        command.arg(format!("--tmpdir={folder}"));
        command.args([&format!("--port={port}"), "--max-connections=500"]);
        // A kill loses nothing that has reached the kernel.
        command.arg("--innodb-flush-log-at-trx-commit=2");
        command.args(self.settings.iter().map(|(name, value)| format!("--{name}={value}")));
        command
    }

    /// A server that is ready sends a greeting, in version 10 of the protocol.
    fn answers(port: u16) -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // Three bytes of length, a sequence number, and the first byte of the message.
        let mut packet = [0; 5];
        stream.read_exact(&mut packet)?;
        Ok(packet[4] == 10)
    }
}
