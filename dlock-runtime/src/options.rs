//! How a lock is acquired and held: the options of the attribute and of manual calls.

use std::time::Duration;

use crate::mode::Mode;

/// How long to wait for a contended lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// At most this long; zero tries once.
    UpTo(Duration),
    /// Without a deadline.
    Forever,
}

impl From<Duration> for Wait {
    fn from(limit: Duration) -> Self {
        Self::UpTo(limit)
    }
}

/// What happens to a body whose lease is lost while it runs.
///
/// A body that has not started yet never runs without its lease, whichever policy applies: the call returns
/// [`LockError::Lost`](crate::LockError::Lost) (or `HeldTooLong`, if `max_hold` ended the hold). This can happen if several keys are acquired one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnLost {
    /// The body is dropped at its next await point, and the loss is reported.
    #[default]
    Cancel,
    /// The body runs to its end, and the loss is reported then.
    Finish,
    /// The body runs to its end, and its own result is returned. The loss is only logged and counted.
    Keep,
}

/// How far a process may pass a lease from one of its tasks to the next before the store decides who is next.
///
/// When a task releases a lock for which another task of the same process waits, the process may keep the lease and pass
/// it on in memory. Each task has a fencing token of its own. A lease is passed a limited number of times within a
/// limited time from its grant (and at most a quarter of its ttl), and is then released for everybody.
///
/// The lease of a task is never passed on if the lock is shared, `fair`, one of several `keys`, or has a `min_hold` or a
/// `grace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    passes: u16,
    within: Duration,
}

impl Handover {
    /// Every release goes to the store.
    pub const OFF: Self = Self { passes: 0, within: Duration::ZERO };

    /// At most 64 times within 10 ms.
    pub const DEFAULT: Self = Self::up_to(64, Duration::from_millis(10));

    /// The maximum number of passes.
    pub const MAX_PASSES: u16 = 1_023;

    /// Creates a limit: so many passes within this time. A larger number than [`MAX_PASSES`](Self::MAX_PASSES) counts
    /// as that.
    #[must_use]
    pub const fn up_to(passes: u16, within: Duration) -> Self {
        let passes = if passes > Self::MAX_PASSES { Self::MAX_PASSES } else { passes };
        Self { passes, within }
    }

    /// Returns how often a lease is passed at most.
    #[must_use]
    pub const fn passes(&self) -> u16 {
        self.passes
    }

    /// Returns the time from its grant in which a lease is passed.
    #[must_use]
    pub const fn within(&self) -> Duration {
        self.within
    }

    /// Returns whether leases are passed at all.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.passes == 0 || self.within.is_zero()
    }
}

impl Default for Handover {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The options of one lock site or one manual call. `None` means the registry's default.
#[doc(hidden)]
#[allow(missing_docs, reason = "each is documented where users set it")]
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent option")]
pub struct LockOptions {
    pub backend: Option<&'static str>,
    pub ttl: Option<Duration>,
    pub wait: Option<Wait>,
    pub renew: bool,
    pub max_hold: Option<Duration>,
    pub min_hold: Option<Duration>,
    pub grace: Option<Duration>,
    /// The caller skips its body if the lock is busy, so that a busy lock is no failure.
    pub skip_if_busy: bool,
    pub on_lost: OnLost,
    pub reentrant: bool,
    pub mode: Mode,
    pub fair: bool,
    pub handover: Option<Handover>,
}

impl LockOptions {
    pub const DEFAULT: Self = Self {
        backend: None,
        ttl: None,
        wait: None,
        renew: true,
        max_hold: None,
        min_hold: None,
        grace: None,
        skip_if_busy: false,
        on_lost: OnLost::Cancel,
        reentrant: true,
        mode: Mode::Exclusive,
        fair: false,
        handover: None,
    };
}
