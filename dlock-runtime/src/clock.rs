//! The clock that measures leases: tokio's clock, plus the time spent suspended on Linux.
//!
//! The monotonic clock stops while a machine is suspended, but leases on a server keep running. So a lease's age is
//! the larger of two ages: by tokio's clock (which a test may pause), and by `CLOCK_BOOTTIME`, which counts suspends.
//! On other systems there is only the monotonic clock.
//!
//! While a test pauses tokio's clock, real time goes on, and `CLOCK_BOOTTIME` with it. Its age then counts only if the
//! machine has been suspended since this process began.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub(crate) use self::boot::BootTime;

/// A hundred years: as good as never.
const FAR: Duration = Duration::from_hours(100 * 365 * 24);

/// The two clocks are not read at the same instant, so a smaller difference between them means nothing.
const CLOSE: Duration = Duration::from_micros(100);

/// Tokio's clock, which a test may pause.
pub(crate) fn instant() -> Instant {
    readings::count();
    Instant::now()
}

/// The present moment, unless a test has paused tokio's clock.
pub(crate) fn unless_paused() -> Option<Moment> {
    const LONG_ENOUGH: Duration = Duration::from_micros(10);
    #[cfg(feature = "sim")]
    if crate::sim::clock::is_simulated() {
        // Both clocks are simulated, so they run alike although tokio's is paused.
        return Some(Moment::now());
    }
    let first = Moment::now();
    loop {
        let now = Moment::now();
        if now.instant > first.instant {
            return Some(now);
        }
        if now.boot.since(first.boot) > LONG_ENOUGH || now.boot == first.boot {
            return None;
        }
    }
}

/// A moment to measure an age from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    instant: Instant,
    boot: BootTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        // The later of the two readings is still no later than what happens next. Every age is at least the true one,
        // because each clock alone measures at least the time since its own reading.
        Self { instant: instant(), boot: BootTime::now() }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.instant
    }

    pub(crate) fn boot(&self) -> BootTime {
        self.boot
    }

    /// The time of day, for people to read. A change of the system's clock shows within a second.
    pub(crate) fn time_of_day(&self) -> SystemTime {
        time_of_day::at(self.boot.nanos())
    }

    /// How long ago this moment was. May be too long, never too short.
    pub(crate) fn elapsed(&self) -> Duration {
        self.age_at(&Self::now())
    }

    /// How old this moment was at a later one. May be too long, never too short.
    pub(crate) fn age_at(&self, now: &Self) -> Duration {
        self.age(now, boot::was_suspended)
    }

    fn age(&self, now: &Self, was_suspended: impl FnOnce() -> bool) -> Duration {
        let by_tokio = now.instant.saturating_duration_since(self.instant);
        let by_boot = now.boot.since(self.boot);
        if by_boot <= by_tokio + CLOSE {
            return by_tokio.max(by_boot);
        }
        // Suspended meanwhile, preempted between two readings, or tokio's clock is paused.
        if was_suspended() {
            return by_boot;
        }
        // A fresh reading, which is no earlier than `now`, because `now` may be the one with the preemption.
        instant().saturating_duration_since(self.instant)
    }

    /// Whether the two clocks have run alike since an earlier moment. If not, tokio's clock is or was paused, or the
    /// machine was suspended.
    pub(crate) fn in_step_with(&self, earlier: &Self) -> bool {
        let by_tokio = self.instant.saturating_duration_since(earlier.instant);
        let by_boot = self.boot.since(earlier.boot);
        by_boot.abs_diff(by_tokio) <= CLOSE
    }

    /// How much earlier the other moment was. May be too short, never too long.
    #[cfg(any(feature = "zookeeper", feature = "etcd", feature = "sim"))]
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        self.instant.saturating_duration_since(earlier.instant)
    }

    /// A later moment, for tests that step through time.
    #[cfg(all(test, any(feature = "zookeeper", feature = "sim")))]
    pub(crate) fn plus(&self, later: Duration) -> Self {
        Self { instant: self.instant + later, boot: self.boot.plus(later) }
    }

    /// The instant at which the age reaches `age`, if the machine is not suspended until then; an instant in the
    /// far future if the clock cannot represent it.
    pub(crate) fn after(&self, age: Duration) -> Instant {
        self.instant.checked_add(age).unwrap_or_else(|| self.instant + FAR)
    }
}

/// The clock that counts suspends.
mod boot {
    use std::time::Duration;

    use super::{readings, source};

    /// The time since the machine started, suspends included, in nanoseconds.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct BootTime(u64);

    impl BootTime {
        pub(crate) const ZERO: Self = Self(0);

        pub(crate) fn now() -> Self {
            readings::count();
            #[cfg(feature = "sim")]
            if let Some(nanos) = crate::sim::clock::boot() {
                return Self(nanos);
            }
            source::remember_start();
            Self(source::boot())
        }

        pub(crate) fn since(self, earlier: Self) -> Duration {
            Duration::from_nanos(self.0.saturating_sub(earlier.0))
        }

        pub(crate) fn plus(self, later: Duration) -> Self {
            Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
        }

        pub(crate) const fn nanos(self) -> u64 {
            self.0
        }
    }

    /// Whether the machine has been suspended since this process first read the clock. May be true by mistake.
    pub(super) fn was_suspended() -> bool {
        #[cfg(feature = "sim")]
        if crate::sim::clock::is_simulated() {
            return true;
        }
        source::suspended_since_start() > super::CLOSE
    }
}

#[cfg(target_os = "linux")]
mod source {
    use std::sync::LazyLock;
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    use super::CLOSE;

    /// How long the machine had been suspended when this process first read the clock. At least.
    static SUSPENDED_AT_START: LazyLock<u64> = LazyLock::new(|| {
        let boot = boot();
        boot.saturating_sub(read(ClockId::Monotonic))
    });

    /// Must be called before the first reading that is compared with a later one.
    pub(super) fn remember_start() {
        LazyLock::force(&SUSPENDED_AT_START);
    }

    pub(super) fn boot() -> u64 {
        read(ClockId::Boottime)
    }

    fn read(clock: ClockId) -> u64 {
        let time = clock_gettime(clock);
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
    }

    /// At most. Retries a few times if it is more than nothing: the thread may have been preempted between the two
    /// readings.
    pub(super) fn suspended_since_start() -> Duration {
        let mut most = Duration::MAX;
        for _ in 0..4 {
            let monotonic = read(ClockId::Monotonic);
            let suspended = boot().saturating_sub(monotonic);
            most = most.min(Duration::from_nanos(suspended.saturating_sub(*SUSPENDED_AT_START)));
            if most <= CLOSE {
                break;
            }
        }
        most
    }
}

/// Without a clock that counts suspends, tokio's clock takes its place.
#[cfg(not(target_os = "linux"))]
mod source {
    use std::sync::LazyLock;
    use std::time::Duration;

    use tokio::time::Instant;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn remember_start() {}

    pub(super) fn boot() -> u64 {
        u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn suspended_since_start() -> Duration {
        Duration::ZERO
    }
}

/// The time of day, from a reading that is at most a second old and the time since then.
mod time_of_day {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime};

    use super::readings;

    const REFRESH: u64 = 1_000_000_000;

    /// When the clock was read last, by the boot clock, and by how much the time since 1970 is more than that of the
    /// boot clock. The two are not read together: a mixture of two readings is as good as either.
    static READ_AT: AtomicU64 = AtomicU64::new(0);
    static AHEAD: AtomicU64 = AtomicU64::new(0);

    pub(super) fn at(boot: u64) -> SystemTime {
        #[cfg(feature = "sim")]
        if let Some(time) = crate::sim::clock::time_of_day() {
            return time;
        }
        if boot.abs_diff(READ_AT.load(Ordering::Relaxed)) > REFRESH {
            readings::count();
            let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let nanos = u64::try_from(since_1970.unwrap_or_default().as_nanos()).unwrap_or(0);
            AHEAD.store(nanos.saturating_sub(boot), Ordering::Relaxed);
            READ_AT.store(boot, Ordering::Relaxed);
        }
        SystemTime::UNIX_EPOCH + Duration::from_nanos(AHEAD.load(Ordering::Relaxed) + boot)
    }
}

/// Counts how often this thread reads a clock, for tests: reading one is a large part of the cost of a call.
#[cfg(test)]
pub(crate) mod readings {
    use std::cell::Cell;

    thread_local! {
        static READINGS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        READINGS.set(READINGS.get() + 1);
    }

    pub(crate) fn counted() -> usize {
        READINGS.get()
    }
}

#[cfg(not(test))]
mod readings {
    pub(super) const fn count() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ages_follow_a_paused_clock() {
        let start = Moment::now();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(5)).await;
        let age = start.elapsed();
        assert!(age >= Duration::from_secs(5) && age < Duration::from_millis(5_005), "{age:?}");
        assert!(!Moment::now().in_step_with(&start));
        assert!(unless_paused().is_none());
    }

    #[tokio::test]
    async fn a_clock_that_runs_is_not_taken_for_a_paused_one() {
        assert!(unless_paused().is_some());
    }

    #[test]
    fn the_time_of_day_is_right() {
        for _ in 0..3 {
            let shown = Moment::now().time_of_day();
            let off = SystemTime::now().duration_since(shown).unwrap_or_default();
            assert!(off < Duration::from_secs(1), "{off:?}");
        }
    }

    #[test]
    fn a_suspend_counts() {
        let start = Moment::now();
        let now = Moment::now();
        // While a machine is suspended, only one of the clocks runs. No other age is safe then.
        let resumed = Moment { boot: now.boot.plus(Duration::from_secs(5)), ..now };
        assert!(!resumed.in_step_with(&start));
        assert!(start.age(&resumed, || true) >= Duration::from_secs(5));
        assert!(start.age(&resumed, || false) < Duration::from_secs(5));
    }

    #[test]
    fn a_preemption_between_two_readings_makes_no_age_too_short() {
        let start = Moment::now();
        std::thread::sleep(Duration::from_millis(5));
        let boot = BootTime::now();
        let preempted = Moment { instant: start.instant, boot };
        assert!(start.age_at(&preempted) >= Duration::from_millis(5));
    }
}
