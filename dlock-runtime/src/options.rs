//! How one lock is taken and held: what the attribute and the manual calls both fill in.

use std::time::Duration;

use crate::backend::Sharing;

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

/// Does a lock exclude everybody, or only those that do not share it?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// One holder: a writer.
    #[default]
    Exclusive,
    /// Any number of holders that share it, and no other: readers. A writer that waits is not passed by
    /// readers that come later.
    Shared,
}

impl From<Mode> for Sharing {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::Exclusive,
            Mode::Shared => Self::Shared,
        }
    }
}

/// The options of one lock site or one manual call. `None` means the registry's default.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
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
    pub(crate) sharing: Sharing,
    pub(crate) fair: bool,
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
        sharing: Sharing::Exclusive,
        fair: false,
    };
}
