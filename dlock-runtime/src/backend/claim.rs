//! Who asks for a key, and how.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::client_info::Claimant;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// What a holder or a would-be holder shows to the backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The key.
    pub key: LockKey,
    /// Drawn afresh for every acquire.
    pub owner: OwnerId,
    /// The lease's length, from each grant or renewal.
    pub ttl: Duration,
    /// The token, once it was granted.
    pub token: Option<FencingToken>,
    /// Who else may hold the key beside it.
    pub sharing: Sharing,
    /// First come, first served: is it to take a place in the store's queue?
    pub fair: bool,
    /// How much longer its caller waits. With none left it needs no place in a queue.
    pub patience: Duration,
    /// Who it is, for people: stored beside the owner.
    pub claimant: Claimant,
}

/// Who else may hold a key beside a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sharing {
    /// Nobody.
    #[default]
    Exclusive,
    /// Others that share.
    Shared,
    /// Others with permits, as long as there are fewer than so many holders.
    Permits(NonZeroU32),
}

impl Sharing {
    /// At most so many holders: one of them holds alone.
    #[must_use]
    pub const fn of_permits(permits: NonZeroU32) -> Self {
        if permits.get() == 1 { Self::Exclusive } else { Self::Permits(permits) }
    }

    /// How many may hold a key by it: its permits, and otherwise one writer.
    pub(crate) const fn permits(self) -> u32 {
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

impl Claim {
    /// A claim of a new owner.
    #[must_use]
    pub fn new(key: LockKey, ttl: Duration) -> Self {
        Self {
            key,
            owner: OwnerId::random(),
            ttl,
            token: None,
            sharing: Sharing::Exclusive,
            fair: false,
            patience: Duration::ZERO,
            claimant: Claimant::new(""),
        }
    }

    /// Does it ask for the key alone, and in no order?
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        matches!(self.sharing, Sharing::Exclusive) && !self.fair
    }

    /// May it stand among those who share the key or wait for it in order? Who was granted a key alone does
    /// not, any more.
    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) const fn may_be_in_a_group(&self) -> bool {
        !matches!(self.sharing, Sharing::Exclusive) || self.token.is_none()
    }

    /// The same, sharing the key so.
    #[must_use]
    pub const fn with_sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// The same, first come, first served or not.
    #[must_use]
    pub const fn with_fair(mut self, fair: bool) -> Self {
        self.fair = fair;
        self
    }

    /// The same, of this one.
    #[must_use]
    pub fn with_claimant(mut self, claimant: Claimant) -> Self {
        self.claimant = claimant;
        self
    }

    /// The same with a caller that waits for so long.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}
