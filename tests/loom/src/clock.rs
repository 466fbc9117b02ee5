//! A clock that stands still until a check moves it, with the interface of the engine's own.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::timer;

/// The same in every run, because a run has to be repeatable.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    /// Since the origin. All threads of a model run on one thread.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Begins a new run.
pub(crate) fn reset() {
    NOW.set(Duration::ZERO);
    timer::reset();
}

/// Lets time pass, and wakes those who slept until then.
pub(crate) fn advance(by: Duration) {
    timer::advance(|| NOW.set(NOW.get() + by));
}

pub(crate) fn instant() -> Instant {
    *ORIGIN + NOW.get()
}

#[expect(clippy::unnecessary_wraps, reason = "the engine's clock may be paused")]
pub(crate) fn unless_paused() -> Option<Moment> {
    Some(Moment::now())
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(Duration);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(NOW.get())
    }

    pub(crate) fn instant(&self) -> Instant {
        *ORIGIN + self.0
    }

    pub(crate) fn boot(&self) -> BootTime {
        BootTime::at(self.0)
    }

    pub(crate) fn time_of_day(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.0
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.age_at(&Self::now())
    }

    pub(crate) fn age_at(&self, now: &Self) -> Duration {
        now.0.saturating_sub(self.0)
    }

    #[expect(clippy::unused_self, reason = "there is one clock")]
    pub(crate) fn in_step_with(&self, _earlier: &Self) -> bool {
        true
    }

    pub(crate) fn after(&self, age: Duration) -> Instant {
        self.instant() + age
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTime(u64);

impl BootTime {
    pub(crate) const ZERO: Self = Self(0);

    pub(crate) fn now() -> Self {
        Self::at(NOW.get())
    }

    fn at(since_origin: Duration) -> Self {
        Self::ZERO.plus(since_origin)
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
