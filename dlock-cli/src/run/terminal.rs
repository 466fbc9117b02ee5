//! The terminal belongs to one process group at a time. It stays with this process, which passes Ctrl-C and Ctrl-Z on, until
//! the command reads from it or changes it.

use std::fs::File;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, getpgrp, getsid, tcgetpgrp, tcsetpgrp};

use crate::supervise::Group;

/// The terminal of this session.
pub struct Terminal {
    tty: File,
    own: Pid,
}

impl Terminal {
    pub fn open() -> Option<Self> {
        let tty = File::options().read(true).write(true).open("/dev/tty").ok()?;
        Some(Self { tty, own: getpgrp() })
    }

    /// Is there a shell that continues when this process is stopped?
    pub fn has_job_control(&self) -> bool {
        getsid(None).is_ok_and(|session| session != self.own)
    }

    /// Gives it to the command if this process has it.
    pub fn give_to(&self, group: Group) -> bool {
        self.owner() == Some(self.own) && self.set(group.id())
    }

    /// Takes it back from the command.
    pub fn take_from(&self, group: Group) {
        if self.owner() == Some(group.id()) {
            self.set(self.own);
        }
    }

    fn owner(&self) -> Option<Pid> {
        tcgetpgrp(&self.tty).ok()
    }

    /// A process in the background may do this only while `SIGTTOU` is blocked.
    fn set(&self, group: Pid) -> bool {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let is_set = tcsetpgrp(&self.tty, group).is_ok();
        if let Ok(before) = before {
            let _ = before.thread_set_mask();
        }
        is_set
    }
}
