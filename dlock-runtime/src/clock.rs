//! The clock that measures leases: tokio's clock, plus the time spent suspended on Linux.
//!
//! The monotonic clock stops while a machine is suspended, but leases on a server keep running. So
//! a lease's age is tokio's elapsed time (which a test may pause) plus what `CLOCK_BOOTTIME` has
//! gained on `CLOCK_MONOTONIC` since. On other systems there is only the monotonic clock.

use std::time::Duration;

use tokio::time::Instant;

/// A hundred years: as good as never.
const FAR: Duration = Duration::from_hours(100 * 365 * 24);

/// A moment to measure an age from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    instant: Instant,
    suspended: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), suspended: suspended::at_least() }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.instant
    }

    /// How long ago this moment was. May be too long, never too short.
    pub(crate) fn elapsed(&self) -> Duration {
        self.instant.elapsed() + suspended::at_most(self.suspended).saturating_sub(self.suspended)
    }

    /// How much earlier the other moment was. May be too short, never too long.
    #[cfg(any(feature = "zookeeper", feature = "etcd"))]
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        self.instant.saturating_duration_since(earlier.instant)
    }

    /// A later moment, for tests that step through time.
    #[cfg(all(test, feature = "zookeeper"))]
    pub(crate) fn plus(&self, later: Duration) -> Self {
        Self { instant: self.instant + later, suspended: self.suspended }
    }

    /// The instant at which the age reaches `age`, if the machine is not suspended until then; an instant in the
    /// far future if the clock cannot represent it.
    pub(crate) fn after(&self, age: Duration) -> Instant {
        self.instant.checked_add(age).unwrap_or_else(|| self.instant + FAR)
    }
}

/// The time spent suspended since the machine started: the difference between two clocks. They
/// cannot be read at the same instant, so they are read in the order that errs on the safe side.
#[cfg(target_os = "linux")]
mod suspended {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    /// Reading two clocks may take this long, so a smaller difference means nothing.
    const CLOSE: Duration = Duration::from_micros(100);

    fn read(clock: ClockId) -> Duration {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    pub(super) fn at_least() -> Duration {
        let boot = read(ClockId::Boottime);
        boot.saturating_sub(read(ClockId::Monotonic))
    }

    /// Retries a few times if the result exceeds `before`: the thread may have been preempted
    /// between the two readings.
    pub(super) fn at_most(before: Duration) -> Duration {
        let mut most = Duration::MAX;
        for _ in 0..4 {
            let monotonic = read(ClockId::Monotonic);
            most = most.min(read(ClockId::Boottime).saturating_sub(monotonic));
            if most <= before + CLOSE {
                break;
            }
        }
        most
    }
}

#[cfg(not(target_os = "linux"))]
mod suspended {
    use std::time::Duration;

    pub(super) fn at_least() -> Duration {
        Duration::ZERO
    }

    pub(super) fn at_most(_: Duration) -> Duration {
        Duration::ZERO
    }
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
