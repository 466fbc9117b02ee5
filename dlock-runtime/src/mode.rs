//! Which callers may hold a key together.

use std::num::NonZeroU32;

/// Which others may hold a key at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Mode {
    /// Nobody: a writer.
    #[default]
    Exclusive,
    /// Others that share it: readers. Later readers do not overtake a waiting writer.
    Shared,
    /// Others with permits: a counting semaphore with at most this many holders.
    Permits(NonZeroU32),
}

impl Mode {
    /// Allows at most this many holders; a single permit is an exclusive lock.
    #[must_use]
    pub const fn permits(permits: NonZeroU32) -> Self {
        if permits.get() == 1 { Self::Exclusive } else { Self::Permits(permits) }
    }

    /// The most holders that are counted: the number of permits, otherwise one writer.
    pub(crate) const fn max_holders(self) -> u32 {
        match self {
            Self::Permits(permits) => permits.get(),
            Self::Exclusive | Self::Shared => 1,
        }
    }

    /// The first number of permits among `others` that differs from this mode's, if this mode has permits.
    pub(crate) fn other_permits(self, others: impl Iterator<Item = Self>) -> Option<NonZeroU32> {
        let Self::Permits(own) = self else { return None };
        let mut others = others.filter_map(|other| match other {
            Self::Permits(permits) => Some(permits),
            Self::Exclusive | Self::Shared => None,
        });
        others.find(|permits| *permits != own)
    }

    /// Encodes the mode for stores: `x`, `s`, or `p` and the number.
    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn code(self) -> String {
        match self {
            Self::Exclusive => "x".to_owned(),
            Self::Shared => "s".to_owned(),
            Self::Permits(permits) => format!("p{permits}"),
        }
    }
}
