//! The process group of a command.

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(Pid);

impl Group {
    pub fn new(leader: i32) -> Self {
        Self(Pid::from_raw(leader))
    }

    pub fn id(self) -> Pid {
        self.0
    }

    /// Sends a signal to all its processes. If there are none any more, that is fine.
    pub fn send(self, signal: Signal) {
        let _ = killpg(self.0, signal);
    }

    /// Asks its processes to end, those that are stopped as well.
    pub fn terminate(self) {
        self.send(Signal::SIGTERM);
        self.send(Signal::SIGCONT);
    }

    /// Has it no process? If it was killed, those that nobody has reaped do not count.
    pub fn is_empty(self, is_killed: bool) -> bool {
        killpg(self.0, None) == Err(Errno::ESRCH) || is_killed && self.has_only_zombies()
    }

    #[cfg(target_os = "linux")]
    fn has_only_zombies(self) -> bool {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let own = self.0.to_string();
        let runs = |process: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // The name of the program, in parentheses, may contain anything.
            let mut words = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            let (state, _parent, group) = (words.next(), words.next(), words.next());
            group == Some(&*own) && !matches!(state, Some("Z" | "X"))
        };
        !processes.into_iter().any(runs)
    }

    #[cfg(not(target_os = "linux"))]
    fn has_only_zombies(self) -> bool {
        false
    }
}
