//! What a store shows to an operator: who holds a key and who waits for it.

use std::time::Duration;

use super::Mode;
use crate::client_info::ClientInfo;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// A key that is held or waited for, as [`Backend::list`](super::Backend::list) sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LockState {
    /// The key.
    pub key: LockKey,
    /// Who holds it; several if they share it.
    pub holders: Vec<Holder>,
    /// Who waits for it in the store's own queue, in order. Other waiters are not known to the store.
    pub waiters: Vec<Waiter>,
}

impl LockState {
    /// A key's state, for backends.
    #[must_use]
    pub const fn new(key: LockKey, holders: Vec<Holder>, waiters: Vec<Waiter>) -> Self {
        Self { key, holders, waiters }
    }

    /// Does nobody hold it or wait for it?
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }
}

/// Who holds a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// The owner; `None` while a released key is kept locked for the rest of its `min_hold`, and for a
    /// holder that is not a dlock.
    pub owner: Option<OwnerId>,
    /// Its token.
    pub token: FencingToken,
    /// When the lease ends without a renewal.
    pub expires_in: Duration,
    /// Who else may hold the key beside it.
    pub mode: Mode,
    /// Who it is, or was: a `min_hold` outlasts its holder.
    pub client_info: Option<ClientInfo>,
    /// Has its hold been [revoked](super::Backend::revoke)?
    pub revoked: bool,
}

impl Holder {
    /// An exclusive holder of whom no more is known, for backends.
    #[must_use]
    pub const fn new(owner: Option<OwnerId>, token: FencingToken, expires_in: Duration) -> Self {
        let mode = Mode::Exclusive;
        Self { owner, token, expires_in, mode, client_info: None, revoked: false }
    }

    /// The same, sharing the key so.
    #[must_use]
    pub const fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The same, of this one.
    #[must_use]
    pub fn with_client_info(mut self, client_info: Option<ClientInfo>) -> Self {
        self.client_info = client_info;
        self
    }

    /// The same, revoked or not.
    #[must_use]
    pub const fn with_revoked(mut self, revoked: bool) -> Self {
        self.revoked = revoked;
        self
    }
}

/// Who waits for a key in the store's own queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Waiter {
    /// The owner that it will be; `None` for one that is not a dlock.
    pub owner: Option<OwnerId>,
    /// Who may hold the key beside it.
    pub mode: Mode,
    /// Who it is.
    pub client_info: Option<ClientInfo>,
}

impl Waiter {
    /// A waiter, for backends.
    #[must_use]
    pub const fn new(owner: Option<OwnerId>, mode: Mode, client_info: Option<ClientInfo>) -> Self {
        Self { owner, mode, client_info }
    }
}
