//! What identifies a hold to the backend, and how the key is requested.

use std::time::Duration;

use crate::client_info::ClientInfo;
use crate::key::LockKey;
use crate::mode::Mode;
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// The largest block of tokens.
const MAX_TOKEN_BLOCK: u16 = 1_024;

/// What the engine shows to the backend to acquire, renew or release a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The key.
    pub key: LockKey,
    /// The identity of the hold, drawn anew for every acquire.
    pub owner: OwnerId,
    /// The length of the lease, from each grant or renewal.
    pub ttl: Duration,
    /// The fencing token, once the claim has been granted; of a [block](Self::token_block), the largest.
    pub token: Option<FencingToken>,
    /// How many consecutive tokens the caller can use, for holds that follow each other under one lease: from one
    /// to 1,024. A store may reserve fewer. The number may differ between the requests of one claim, and is one as soon as
    /// an earlier request may have been executed.
    pub token_block: u16,
    /// Which others may hold the key at the same time.
    pub mode: Mode,
    /// Whether it is served first come, first served, and so takes a position in the store's queue.
    pub fair: bool,
    /// How much longer the caller waits. With zero left it needs no queue position. Up to date only in
    /// [`try_acquire`](super::Backend::try_acquire) and [`try_acquire_set`](super::Backend::try_acquire_set).
    pub wait_left: Duration,
    /// The client, as shown to operators; stored beside the owner id.
    pub client_info: ClientInfo,
}

impl Claim {
    /// Creates a claim with a new owner id.
    #[must_use]
    pub fn new(key: LockKey, ttl: Duration) -> Self {
        Self::of(key, ttl, ClientInfo::new(""))
    }

    pub(crate) fn of(key: LockKey, ttl: Duration, client_info: ClientInfo) -> Self {
        Self {
            key,
            owner: OwnerId::random(),
            ttl,
            token: None,
            token_block: 1,
            mode: Mode::Exclusive,
            fair: false,
            wait_left: Duration::ZERO,
            client_info,
        }
    }

    /// Returns whether the claim is exclusive and not fair.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        matches!(self.mode, Mode::Exclusive) && !self.fair
    }

    /// [`token_block`](Self::token_block), within its limits.
    pub(crate) fn block(&self) -> u16 {
        self.token_block.clamp(1, MAX_TOKEN_BLOCK)
    }

    /// The tokens of its block besides the one that any grant has.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "sim"))]
    pub(crate) fn more_tokens(&self) -> u16 {
        self.block() - 1
    }

    /// May it be among those that share the key or wait for it in order? A claim that was granted the key exclusively is
    /// not.
    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) const fn may_be_in_a_group(&self) -> bool {
        !matches!(self.mode, Mode::Exclusive) || self.token.is_none()
    }

    /// Sets the mode.
    #[must_use]
    pub const fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets whether it is served first come, first served.
    #[must_use]
    pub const fn with_fair(mut self, fair: bool) -> Self {
        self.fair = fair;
        self
    }

    /// Sets the client info.
    #[must_use]
    pub fn with_client_info(mut self, client_info: ClientInfo) -> Self {
        self.client_info = client_info;
        self
    }

    /// Sets how many consecutive tokens the caller can use, from 1 to 1,024.
    #[must_use]
    pub const fn with_token_block(mut self, tokens: u16) -> Self {
        self.token_block = tokens;
        self
    }

    /// Sets how much longer the caller waits.
    #[must_use]
    pub const fn with_wait_left(mut self, wait_left: Duration) -> Self {
        self.wait_left = wait_left;
        self
    }
}
