//! A process that becomes the command.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use nix::unistd::{Pid, getppid};

use crate::exit::say;

/// What a shell exits with if a command cannot be executed, and if it is not found.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Becomes the command, which the kernel kills when its supervisor dies.
pub fn become_command(supervisor: &OsStr, command: &[OsString]) -> ExitCode {
    let supervisor = supervisor.to_str().and_then(|id| id.parse().ok()).map(Pid::from_raw);
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL) {
        say(format_args!("cannot tie the command to its supervisor: {error}"));
        return ExitCode::from(NOT_EXECUTABLE);
    }
    // It may have died before the signal was requested.
    if supervisor != Some(getppid()) {
        return ExitCode::from(NOT_EXECUTABLE);
    }
    let Some((program, arguments)) = command.split_first() else {
        return ExitCode::from(NOT_EXECUTABLE);
    };
    let error = Command::new(program).args(arguments).exec();
    say(format_args!("cannot run `{}`: {error}", program.display()));
    let is_missing = error.kind() == ErrorKind::NotFound;
    ExitCode::from(if is_missing { NOT_FOUND } else { NOT_EXECUTABLE })
}
