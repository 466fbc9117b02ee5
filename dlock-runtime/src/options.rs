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

/// The options of one lock site or one manual call. `None` means the registry's default.
#[doc(hidden)]
#[allow(missing_docs, reason = "each is documented where users set it")]
#[derive(Clone, Copy, Debug)]
pub struct LockOptions {
    pub backend: Option<&'static str>,
    pub ttl: Option<Duration>,
    pub wait: Option<Wait>,
    pub renew: bool,
    pub max_hold: Option<Duration>,
    pub min_hold: Option<Duration>,
    pub on_lost: OnLost,
    pub reentrant: bool,
    pub mode: Mode,
    pub fair: bool,
}

impl LockOptions {
    pub const DEFAULT: Self = Self {
        backend: None,
        ttl: None,
        wait: None,
        renew: true,
        max_hold: None,
        min_hold: None,
        on_lost: OnLost::Cancel,
        reentrant: true,
        mode: Mode::Exclusive,
        fair: false,
    };
}
