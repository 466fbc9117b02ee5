//! What `dlock run` and its supervisor tell each other: lines of JSON over a socket.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment on the clock that also counts while the machine is suspended, which all processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootTime(Duration);

impl BootTime {
    pub fn now() -> Self {
        #[cfg(target_os = "linux")]
        const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
        #[cfg(not(target_os = "linux"))]
        const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;
        // A kernel without this clock does not run this program.
        Self(clock_gettime(CLOCK).map(Duration::from).unwrap_or_default())
    }

    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    pub fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }
}

/// How much time the command gets to end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// It is asked to end when so much time is left before the lock may be somebody else's.
    pub end_before: Duration,
    /// It is killed when so much is left.
    pub kill_before: Duration,
    /// It is killed so long after it was asked to end.
    pub kill_after: Duration,
}

impl Limits {
    /// For a lock that was just proved to be held for so long. A lease is renewed when a third of that has passed. Of a
    /// session, less may be proved at other times.
    pub fn of(proof: Duration, kill_after: Duration, is_session: bool) -> Self {
        let end_before = if is_session { proof / 8 } else { proof / 4 };
        let kill_before = (proof / 20).max(Duration::from_millis(100)).min(end_before / 2);
        Self { end_before, kill_before, kill_after }
    }
}

/// From `dlock run`.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Start the command. The first order.
    Begin { until: BootTime, limits: Limits },
    /// The lock is certain to be held until then.
    Held { until: BootTime },
    /// End the command, within its limits.
    End,
}

/// To `dlock run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The command runs as the leader of a process group.
    Started { id: i32 },
    /// This signal stopped it, for example because of Ctrl-Z.
    Stopped { signal: i32 },
    /// It ended with this code.
    Exited { code: i32 },
    /// This signal killed it.
    Killed { signal: i32 },
    /// The lock was about to be lost, so the command was asked to end.
    Ending,
    /// Nothing of its group is left. The last report.
    Gone,
}

/// A message as it is sent.
pub fn line(message: &impl Serialize) -> io::Result<String> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    Ok(line)
}

pub fn write(mut to: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    to.write_all(line(message)?.as_bytes())
}
