//! Data directories: initialized once per test process, unpacked for each server.

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// A data directory as initialized by its server's program.
///
/// It is kept as an archive in memory, so nothing is left on disk when the process ends.
pub struct Template(OnceLock<Vec<u8>>);

impl Template {
    /// A template that is initialized on first use.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Creates a directory that belongs to `user`, with the files that `initialise` writes to an
    /// empty one; see [`run_as`].
    pub fn unpack(&self, user: &str, initialise: impl FnOnce(&Path)) -> TempDir {
        let archive = self.0.get_or_init(|| {
            let folder = temporary();
            if let Some((user, group)) = account(user) {
                chown(folder.path(), Some(user), Some(group)).expect("a writable directory");
            }
            initialise(folder.path());
            pack(folder.path())
        });
        let folder = temporary();
        unpack(archive, folder.path());
        folder
    }
}

/// A command that runs a program as the server's own user if we are root. These servers refuse to
/// run as root.
///
/// # Panics
/// If we are root and there is no such user.
#[must_use]
pub fn run_as(user: &str, program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = account(user) {
        command.uid(user).gid(group);
    }
    command
}

/// Runs a program to completion.
///
/// # Panics
/// If the command fails.
pub fn complete(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    output
}

/// The ids of a user and its group if we are root. Only root can run a program as another user.
fn account(user: &str) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("the users of this machine");
    let line = users.lines().find(|line| line.split(':').next() == Some(user));
    let line = line.unwrap_or_else(|| panic!("root cannot run this server: no user {user} here"));
    let mut ids = line.split(':').skip(2).map(|id| id.parse().expect("a number"));
    Some((ids.next().expect("a user id"), ids.next().expect("a group id")))
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// `--sparse` keeps files that are mostly zeros small, such as write-ahead logs.
fn pack(folder: &Path) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sparse", "--hole-detection=raw", "--numeric-owner", "--directory"]);
    complete(tar.arg(folder).arg(".")).stdout
}

fn unpack(archive: &[u8], folder: &Path) {
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--same-permissions", "--numeric-owner", "--directory"]).arg(folder);
    let mut child = tar.stdin(Stdio::piped()).spawn().expect("tar is on the PATH");
    child.stdin.take().expect("the stream is piped").write_all(archive).expect("tar reads");
    assert!(child.wait().expect("our own child process").success(), "{tar:?} failed");
}
