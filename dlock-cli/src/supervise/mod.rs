//! The process between `dlock run` and the command.
//!
//! It starts the command in a process group of its own, and ends that group before the lock could be somebody else's. So
//! it watches `dlock run` itself: if that one is stopped or killed, it sends no later deadline, and the command ends in
//! time. If this process is killed, the kernel kills the command (on Linux), and `dlock run` kills its group.
//!
//! The command is started through another run of this program, which asks the kernel for that signal and then becomes the
//! command.

mod child;
mod children;
mod descendants;
mod group;
pub mod messages;
pub mod socket;
mod supervisor;

use std::process::ExitCode;

pub use self::group::Group;
pub use self::messages::{BootTime, Limits, Order, Report};

/// The first argument of this program as a supervisor. The others are the name of the socket and the command.
pub const SUPERVISE: &str = "__supervise";

/// The first argument of this program as the command to be. The others are the process id of its supervisor and the
/// command.
const EXECUTE: &str = "__execute";

/// Does what a `dlock run` asks of its own children. `None`: this is not one of them.
pub fn if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let purpose = arguments.next()?;
    if purpose == SUPERVISE {
        return Some(supervisor::supervise(&arguments.next()?, &arguments.collect::<Vec<_>>()));
    }
    if purpose == EXECUTE {
        return Some(child::become_command(&arguments.next()?, &arguments.collect::<Vec<_>>()));
    }
    None
}
