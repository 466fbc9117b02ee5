//! Who asks for a key, and how.

use std::time::Duration;

use crate::client_info::ClientInfo;
use crate::key::LockKey;
use crate::mode::Mode;
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
    pub mode: Mode,
    /// First come, first served: is it to take a place in the store's queue?
    pub fair: bool,
    /// How much longer its caller waits. With none left it needs no place in a queue.
    pub wait_left: Duration,
    /// Who it is, for people: stored beside the owner.
    pub client_info: ClientInfo,
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
            mode: Mode::Exclusive,
            fair: false,
            wait_left: Duration::ZERO,
            client_info: ClientInfo::new(""),
        }
    }

    /// Does it ask for the key alone, and in no order?
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        matches!(self.mode, Mode::Exclusive) && !self.fair
    }

    /// May it stand among those who share the key or wait for it in order? Who was granted a key alone does
    /// not, any more.
    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) const fn may_be_in_a_group(&self) -> bool {
        !matches!(self.mode, Mode::Exclusive) || self.token.is_none()
    }

    /// The same, sharing the key so.
    #[must_use]
    pub const fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
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
    pub fn with_client_info(mut self, client_info: ClientInfo) -> Self {
        self.client_info = client_info;
        self
    }

    /// The same with a caller that waits for so long.
    #[must_use]
    pub const fn with_wait_left(mut self, wait_left: Duration) -> Self {
        self.wait_left = wait_left;
        self
    }
}
