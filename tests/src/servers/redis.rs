//! Redis.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::program;
use super::server::{Kind, Server};

/// A Redis server.
pub type RedisServer = Server<Redis>;

/// What makes a server a [`RedisServer`].
#[derive(Debug)]
pub struct Redis {
    arguments: Vec<String>,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts one that keeps every write on disk.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_durable() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts one with these arguments besides port and directory.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self::launch(Redis { arguments }, folder)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port())
    }
}

impl Kind for Redis {
    fn command(&self, folder: &Path, port: u16) -> Command {
        let mut command = Command::new(program("redis-server").expect("Redis is installed"));
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]);
        command.arg(folder).args(&self.arguments);
        command
    }

    /// Asking for credentials is an answer.
    fn answers(port: u16) -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.starts_with("+PONG") || line.starts_with("-NOAUTH"))
    }
}
