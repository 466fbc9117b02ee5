//! Descendants in other process groups, such as those of `timeout`, of a shell with job control, or of another `dlock run`.
//!
//! When their parent has ended, they become children of the supervisor (on Linux). Those in its own session are ended; what
//! has moved to a session of its own is out of reach.

use std::collections::HashSet;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getsid};

use super::Group;

/// The children of this process outside the command's group.
pub struct Orphans {
    group: Group,
    told: HashSet<Pid>,
}

impl Orphans {
    pub fn outside(group: Group) -> Self {
        Self { group, told: HashSet::new() }
    }

    /// Asks those to end that have not been asked yet.
    pub fn terminate(&mut self) {
        for child in self.find() {
            if self.told.insert(child) {
                let _ = kill(child, Signal::SIGTERM);
                let _ = kill(child, Signal::SIGCONT);
            }
        }
    }

    pub fn kill(&self) {
        for child in self.find() {
            let _ = kill(child, Signal::SIGKILL);
        }
    }

    /// Those in this session. The main thread reaps them, so the ids are theirs.
    pub fn find(&self) -> Vec<Pid> {
        let own = getsid(None).ok();
        let is_here = |child: &Pid| getsid(Some(*child)).ok() == own;
        let is_outside = |child: &Pid| getpgid(Some(*child)) != Ok(self.group.id());
        let children = children().into_iter().map(Pid::from_raw);
        children.filter(is_here).filter(is_outside).collect()
    }
}

#[cfg(target_os = "linux")]
fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let ids = |list: String| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    lists.flat_map(ids).filter_map(|id| id.parse().ok()).collect()
}

#[cfg(not(target_os = "linux"))]
fn children() -> Vec<i32> {
    vec![]
}
