//! How one lock is taken and held: what the attribute and the manual calls both fill in.

use std::time::Duration;

/// How long to wait for a busy lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// At most so long; zero tries once.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnLost {
    /// The body is dropped at its next await point and the loss is reported.
    #[default]
    Cancel,
    /// The body runs to its end, then the loss is reported.
    Finish,
    /// The body runs to its end and its own result stands; the loss is only logged and counted.
    Keep,
}

/// The options of one lock site or one manual call. `None` means the registry's default.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockOptions {
    pub(crate) backend: Option<&'static str>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) wait: Option<Wait>,
    pub(crate) renew: bool,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) min_hold: Option<Duration>,
    pub(crate) skip_if_busy: bool,
    pub(crate) on_lost: OnLost,
    pub(crate) reentrant: bool,
}

impl LockOptions {
    pub(crate) const DEFAULT: Self = Self {
        backend: None,
        ttl: None,
        wait: None,
        renew: true,
        max_hold: None,
        min_hold: None,
        skip_if_busy: false,
        on_lost: OnLost::Cancel,
        reentrant: true,
    };
}
