//! A server's process on a port of its own, and the processes it has started itself.

use std::collections::HashMap;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{find, free_port, id_of};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);

/// How many ports are tried: another process may take one between the look and the start.
const PORTS: usize = 10;

/// What is particular to a kind of server.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) program: &'static str,
    /// The user it runs as when the tests run as root.
    pub(super) user: Option<&'static str>,
    /// Its arguments on this port and directory.
    pub(super) arguments: fn(u16, &Path) -> Vec<String>,
    /// Does it answer on this port?
    pub(super) answers: fn(TcpStream) -> std::io::Result<bool>,
}

/// A server's process; killed when dropped.
#[derive(Debug)]
pub(super) struct ServerProcess {
    kind: Kind,
    folder: TempDir,
    port: u16,
    more: Vec<String>,
    child: Option<Child>,
}

impl ServerProcess {
    /// Starts one in this directory, with more arguments.
    pub(super) fn start(kind: Kind, folder: TempDir, more: Vec<String>) -> Self {
        let mut server = Self { kind, folder, port: 0, more, child: None };
        for _ in 0..PORTS {
            server.port = free_port().expect("a free port");
            if server.spawn() {
                return server;
            }
        }
        panic!("{} did not start in {}", server.kind.program, server.folder.path().display());
    }

    fn spawn(&mut self) -> bool {
        let Kind { program, user, arguments, answers } = &self.kind;
        let path = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
        let mut command = Command::new(path);
        command.args(arguments(self.port, self.folder.path())).args(&self.more);
        command.current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        as_user(&mut command, *user);
        let child = self.child.insert(command.spawn().expect("a program that can be run"));
        let began = Instant::now();
        while began.elapsed() < START {
            if child.try_wait().expect("a child of ours").is_some() {
                return false;
            }
            if answered(self.port, *answers).unwrap_or(false) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Ends it and what it started at once, as a power cut would.
    pub(super) fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        let all = family(id_of(&child));
        // All at once: a child would go on serving, or tidy up, after its parent.
        for id in &all {
            let _ = kill_process(*id, Signal::KILL);
        }
        child.wait().expect("a child of ours");
        while all.iter().any(|id| is_running(*id)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Starts it again on the same port and directory, with what it kept.
    pub(super) fn restart(&mut self) {
        assert!(self.child.is_none(), "kill it first");
        assert!(self.spawn(), "{} did not start again on port {}", self.kind.program, self.port);
    }

    /// Stops it and what it started where they are.
    pub(super) fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets them go on.
    pub(super) fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let parent = id_of(self.child.as_ref().expect("the server runs"));
        // The parent first: a stopped one starts no more.
        for id in family(parent) {
            let _ = kill_process(id, signal);
        }
        for id in family(parent) {
            let _ = kill_process(id, signal);
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

fn answered(port: u16, answers: fn(TcpStream) -> std::io::Result<bool>) -> std::io::Result<bool> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    answers(stream)
}

/// Runs the command as this user if we are root; otherwise as ourselves.
pub(super) fn as_user(command: &mut Command, user: Option<&str>) {
    if let Some((user, group)) = user.and_then(user_ids) {
        command.uid(user).gid(group);
    }
}

/// The ids of a user of this machine, which only root can take; `None` if we are not root.
///
/// # Panics
/// When there is no such user.
#[must_use]
pub fn user_ids(user: &str) -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("the machine's users");
    let line = users.lines().find_map(|line| line.strip_prefix(&format!("{user}:")));
    let mut fields = line.unwrap_or_else(|| panic!("no user {user}")).split(':').skip(1);
    let mut id = || fields.next().and_then(|id| id.parse().ok()).expect("an id");
    Some((id(), id()))
}

/// Copies a directory with its owners and permissions.
pub(super) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.expect("cp").success(), "{} could not be copied", from.display());
}

/// A process and all that it has started, and so on.
fn family(parent: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").expect("the machine's processes").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some((_, parent)) = state(id) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut all = vec![parent];
    let mut next = 0;
    while let Some(id) = all.get(next) {
        let of = children.remove(&id.as_raw_nonzero().get()).unwrap_or_default();
        all.extend(of.into_iter().filter_map(Pid::from_raw));
        next += 1;
    }
    all
}

fn is_running(id: Pid) -> bool {
    state(id.as_raw_nonzero().get()).is_some_and(|(state, _)| state != "Z" && state != "X")
}

/// A process's state and its parent. Its name, in parentheses, may contain anything.
fn state(id: i32) -> Option<(String, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
