//! Time as the engine measures it: tokio's clock, and on Linux the time spent suspended on top.
//!
//! A suspended machine's monotonic clock stands still while the leases on a server run on. So a
//! lease's age is tokio's elapsed time (which a test may pause) plus what `CLOCK_BOOTTIME` gained on
//! `CLOCK_MONOTONIC` meanwhile. Elsewhere the monotonic clock is all there is.

use std::time::Duration;

use tokio::time::Instant;

/// A moment to measure an age from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    instant: Instant,
    suspended: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), suspended: suspended().least }
    }

    /// How long ago this was; rather too long than too short.
    pub(crate) fn elapsed(&self) -> Duration {
        self.instant.elapsed() + suspended().most.saturating_sub(self.suspended)
    }

    /// The instant at which the age will be `age`, if the machine is not suspended until then.
    pub(crate) fn after(&self, age: Duration) -> Instant {
        let slept = suspended().least.saturating_sub(self.suspended);
        self.instant + age.saturating_sub(slept)
    }
}

/// The time spent suspended since the machine started, between two bounds.
struct Suspended {
    least: Duration,
    most: Duration,
}

/// The difference of two clocks that cannot be read at once: read one before and after the other.
/// A thread that is preempted in between gets wider bounds, so it tries again a few times.
#[cfg(target_os = "linux")]
fn suspended() -> Suspended {
    use rustix::time::{ClockId, clock_gettime};

    const CLOSE: Duration = Duration::from_micros(20);

    let read = |clock| {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let mut bounds = Suspended { least: Duration::ZERO, most: Duration::MAX };
    for _ in 0..4 {
        let before = read(ClockId::Monotonic);
        let boot = read(ClockId::Boottime);
        let after = read(ClockId::Monotonic);
        bounds.least = bounds.least.max(boot.saturating_sub(after));
        bounds.most = bounds.most.min(boot.saturating_sub(before));
        if after.saturating_sub(before) <= CLOSE {
            break;
        }
    }
    bounds
}

#[cfg(not(target_os = "linux"))]
fn suspended() -> Suspended {
    Suspended { least: Duration::ZERO, most: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ages_follow_a_paused_clock() {
        let start = Moment::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        let age = start.elapsed();
        assert!(age >= Duration::from_secs(5) && age < Duration::from_millis(5_005), "{age:?}");
    }
}
