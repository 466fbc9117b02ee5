//! What is the same for every server: its life.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tempfile::TempDir;

use super::{free_port, id_of, tree};

/// How long a server may take until it answers.
const START: Duration = Duration::from_mins(1);

/// What it says, in its directory.
const LOG: &str = "server.log";

/// What differs between one kind of server and another.
pub trait Kind {
    /// The program, ready to run on this port and directory.
    fn command(&self, folder: &Path, port: u16) -> Command;

    /// Does such a server answer on this port?
    ///
    /// # Errors
    /// When the answer is broken off.
    fn answers(port: u16) -> io::Result<bool>;

    /// Removes what its processes leave on the machine when they are killed.
    fn clean_up(folder: &Path) {
        let _ = folder;
    }
}

/// A server. It ends, and its directory with it, when it is dropped.
#[derive(Debug)]
pub struct Server<K: Kind> {
    kind: K,
    folder: TempDir,
    port: u16,
    child: Option<Child>,
    /// Its processes while it is paused.
    frozen: Vec<Pid>,
}

impl<K: Kind> Server<K> {
    /// Starts one in this directory, on a port that is free.
    ///
    /// # Panics
    /// When it does not start.
    pub(super) fn launch(kind: K, folder: TempDir) -> Self {
        let mut server = Self { kind, folder, port: 0, child: None, frozen: Vec::new() };
        // Another process may take the port between the look and the start: then try the next.
        for _ in 0..5 {
            server.port = free_port().expect("a free port");
            if server.spawn() {
                return server;
            }
        }
        panic!("it did not start: {}", server.story());
    }

    /// Its processes answer, or there are none.
    fn spawn(&mut self) -> bool {
        let log = OpenOptions::new().create(true).append(true).open(self.folder().join(LOG));
        let log = log.expect("a file in a directory of ours");
        let mut command = self.kind.command(self.folder(), self.port);
        command.current_dir(self.folder()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.child = Some(child);
        let began = Instant::now();
        while began.elapsed() < START {
            let child = self.child.as_mut().expect("it was just started");
            if child.try_wait().expect("a child of ours").is_some() {
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

    /// What it was and what it said, for a message.
    fn story(&self) -> String {
        let said = fs::read(self.folder().join(LOG)).unwrap_or_default();
        let command = self.kind.command(self.folder(), self.port);
        format!("{command:?}\n{}", String::from_utf8_lossy(&said))
    }

    /// The directory it works in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, as a power cut would: all of its processes. When this returns they are gone and
    /// its port is free.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        assert!(self.child.is_some(), "the server runs");
        self.end();
    }

    /// Starts it again on the same port and directory, with what it kept.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "kill it first");
        assert!(self.spawn(), "it did not start again: {}", self.story());
    }

    /// Stops its processes where they are. When this returns it answers nothing.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&mut self) {
        self.frozen = tree::freeze(id_of(self.child.as_ref().expect("the server runs")));
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&mut self) {
        assert!(self.child.is_some(), "the server runs");
        tree::thaw(&std::mem::take(&mut self.frozen));
    }

    fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        self.frozen.clear();
        // Stopped first: what does not run starts nothing that would be missed.
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
