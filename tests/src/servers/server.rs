//! The life cycle that all servers share.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tempfile::TempDir;

use super::{free_port, id_of, tree};

/// How long a server may take to answer after it was started.
const START: Duration = Duration::from_mins(1);

/// The log file in the server's directory.
const LOG: &str = "server.log";

/// The differences between kinds of servers.
pub trait Kind {
    /// The command that runs the server on this port and directory.
    fn command(&self, folder: &Path, port: u16) -> Command;

    /// Whether such a server answers on this port.
    ///
    /// # Errors
    /// If the answer is broken off.
    fn answers(port: u16) -> io::Result<bool>;

    /// Removes what the server's processes leave on the machine when they are killed.
    fn clean_up(folder: &Path) {
        let _ = folder;
    }
}

/// A running server. Dropping it kills the server and removes its directory.
#[derive(Debug)]
pub struct Server<K: Kind> {
    kind: K,
    folder: TempDir,
    port: u16,
    child: Option<Child>,
    /// The processes while they are paused.
    frozen: Vec<Pid>,
}

impl<K: Kind> Server<K> {
    /// Starts a server in this directory, on a free port.
    ///
    /// # Panics
    /// If the server does not start.
    pub(super) fn launch(kind: K, folder: TempDir) -> Self {
        let mut server = Self { kind, folder, port: 0, child: None, frozen: Vec::new() };
        // Another process may bind the port after the check, so retry with the next one.
        for _ in 0..5 {
            server.port = free_port().expect("a free port");
            if server.spawn() {
                return server;
            }
        }
        panic!("it did not start: {}", server.describe());
    }

    /// Starts the server. Returns true once it answers, or false with no process left.
    fn spawn(&mut self) -> bool {
        let log = OpenOptions::new().create(true).append(true).open(self.folder().join(LOG));
        let log = log.expect("a writable file");
        let mut command = self.kind.command(self.folder(), self.port);
        command.current_dir(self.folder()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.child = Some(child);
        let began = Instant::now();
        while began.elapsed() < START {
            let child = self.child.as_mut().expect("it was just started");
            if child.try_wait().expect("our own child process").is_some() {
                self.child = None;
                return false;
            }
            if K::answers(self.port).is_ok_and(|answered| answered) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end();
        false
    }

    /// The command and its log, for error messages.
    fn describe(&self) -> String {
        let said = fs::read(self.folder().join(LOG)).unwrap_or_default();
        let command = self.kind.command(self.folder(), self.port);
        format!("{command:?}\n{}", String::from_utf8_lossy(&said))
    }

    /// The working directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The id of its first process.
    ///
    /// # Panics
    /// If the server is not running.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Kills all of the server's processes at once, like a power cut. When this returns, they are
    /// gone and the port is free.
    ///
    /// # Panics
    /// If the server is not running.
    pub fn kill(&mut self) {
        assert!(self.child.is_some(), "the server runs");
        self.end();
    }

    /// Restarts the server on the same port and directory, with the data it kept.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "kill it first");
        assert!(self.spawn(), "it did not restart: {}", self.describe());
    }

    /// Pauses the server's processes. When this returns, the server does not answer.
    ///
    /// # Panics
    /// If the server is not running.
    pub fn pause(&mut self) {
        self.frozen = tree::freeze(id_of(self.child.as_ref().expect("the server runs")));
    }

    /// Resumes the server.
    ///
    /// # Panics
    /// If the server is not running.
    pub fn resume(&mut self) {
        assert!(self.child.is_some(), "the server runs");
        tree::thaw(&std::mem::take(&mut self.frozen));
    }

    fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        self.frozen.clear();
        // Stopped first, so that no process can start another one that would be missed.
        let processes = tree::freeze(id_of(&child));
        tree::kill(&processes);
        let _ = child.wait();
        tree::wait_for_end(&processes[1..]);
        K::clean_up(self.folder.path());
    }
}

impl<K: Kind> Drop for Server<K> {
    fn drop(&mut self) {
        self.end();
    }
}
