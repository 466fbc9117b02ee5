//! Redis.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::program;
use super::redis_cluster::wait_for;
use super::server::{Kind, Server};

/// Valkey's server.
pub const VALKEY: &str = "valkey-server";

/// A Redis server.
pub type RedisServer = Server<Redis>;

/// The parameters of a [`RedisServer`].
#[derive(Debug)]
pub struct Redis {
    program: &'static str,
    arguments: Vec<String>,
    /// The settings of a Sentinel. It stores its state in the same file.
    sentinel: Option<String>,
}

impl RedisServer {
    /// Starts a server without persistence.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts a server that syncs every write to disk.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start_durable() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts a server with these arguments in addition to port and directory.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_program("redis-server", arguments)
    }

    /// Starts a Valkey server without persistence.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start_valkey() -> Self {
        Self::start_program(VALKEY, &["--save", "", "--appendonly", "no"])
    }

    fn start_program(program: &'static str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self::launch(Redis { program, arguments, sentinel: None }, folder)
    }

    /// Starts a Sentinel with these settings.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub(super) fn start_sentinel(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let sentinel = Some(settings.to_owned());
        Self::launch(Redis { program: "redis-server", arguments: vec![], sentinel }, folder)
    }

    /// Sends a command and returns the lines of the answer as `redis-cli` prints them.
    ///
    /// # Panics
    /// If the server does not answer.
    #[must_use]
    pub fn cli(&self, words: &[&str]) -> String {
        cli(self.port(), words)
    }

    /// Waits until this many replicas have acknowledged all earlier writes.
    ///
    /// It is not enough that a replica reports its link as up. After the initial copy, the server
    /// sends it nothing more until it has acknowledged that copy, which may be a second later.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_for_replicas(&self, count: usize) {
        let written = offset(&self.cli(&["INFO", "replication"]), "master_repl_offset:");
        let written = written.expect("the server reports its offset");
        let has_all = |line: &&str| {
            line.starts_with("slave") && offset(line, ",offset=").is_some_and(|of| of >= written)
        };
        wait_for("replicas have every write", || {
            self.cli(&["INFO", "replication"]).lines().filter(has_all).count() >= count
        });
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port())
    }
}

impl Kind for Redis {
    fn command(&self, folder: &Path, port: u16) -> Command {
        let mut command = Command::new(program(self.program).expect("it is installed"));
        if let Some(settings) = &self.sentinel {
            let file = folder.join("sentinel.conf");
            if !file.exists() {
                std::fs::write(&file, settings).expect("a writable file");
            }
            command.arg(file).arg("--sentinel");
        }
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]);
        command.arg(folder).args(&self.arguments);
        command
    }

    /// A request for credentials counts as an answer.
    fn answers(port: u16) -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.starts_with("+PONG") || line.starts_with("-NOAUTH"))
    }
}

/// The number after these words.
fn offset(info: &str, words: &str) -> Option<u64> {
    let (_, after) = info.split_once(words)?;
    after.split([',', '\r', '\n']).next()?.parse().ok()
}

/// Runs `redis-cli` with these arguments and returns its output.
///
/// # Panics
/// If the command fails.
pub(super) fn cli(port: u16, words: &[&str]) -> String {
    let mut command = Command::new(program("redis-cli").expect("Redis is installed"));
    command.args(["-p", &port.to_string()]).args(words);
    String::from_utf8_lossy(&super::data::complete(&mut command).stdout).into_owned()
}
