//! Redis.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;

use super::process::{Kind, ServerProcess};

/// A Redis server.
#[derive(Debug)]
pub struct RedisServer(pub(super) ServerProcess);

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
    pub fn start_with(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let kind = Kind { program: "redis-server", user: None, arguments, answers };
        let more = more.iter().map(|&argument| argument.to_owned()).collect();
        Self(ServerProcess::start(kind, folder, more))
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.0.port())
    }
}

fn arguments(port: u16, folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    ["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir", &folder].map(str::to_owned).into()
}

/// Asking for credentials is an answer.
fn answers(mut stream: TcpStream) -> std::io::Result<bool> {
    stream.write_all(b"PING\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.starts_with("+PONG") || line.starts_with("-NOAUTH"))
}
