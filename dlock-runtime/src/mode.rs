//! Who may hold a key together.

use std::num::NonZeroU32;

/// Who else may hold a key at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// Nobody: a writer.
    #[default]
    Exclusive,
    /// Others that share it: readers. A writer that waits is not passed by readers that come later.
    Shared,
    /// Others with permits: a counting semaphore with this number of holders at most.
    Permits(NonZeroU32),
}

impl Mode {
    /// At most so many holders: one of them holds alone.
    #[must_use]
    pub const fn permits(permits: NonZeroU32) -> Self {
        if permits.get() == 1 { Self::Exclusive } else { Self::Permits(permits) }
    }

    /// How many may hold a key by it: its permits, and otherwise one writer.
    pub(crate) const fn max_holders(self) -> u32 {
        match self {
            Self::Permits(permits) => permits.get(),
            Self::Exclusive | Self::Shared => 1,
        }
    }

    /// The number of permits among these that differs from this one's, if it has one.
    pub(crate) fn other_permits(self, others: impl Iterator<Item = Self>) -> Option<NonZeroU32> {
        let Self::Permits(own) = self else { return None };
        let mut others = others.filter_map(|other| match other {
            Self::Permits(permits) => Some(permits),
            Self::Exclusive | Self::Shared => None,
        });
        others.find(|permits| *permits != own)
    }

    /// How stores write it: `x`, `s`, or `p` and the number.
    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn code(self) -> String {
        match self {
            Self::Exclusive => "x".to_owned(),
            Self::Shared => "s".to_owned(),
            Self::Permits(permits) => format!("p{permits}"),
        }
    }
}
