//! What a store shows to operators: the holders of a key and its waiters.

use std::time::Duration;

use super::Mode;
use crate::client_info::ClientInfo;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// A key that is held or waited for, as [`Backend::list`](super::Backend::list) sees it.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LockState {
    /// The key.
    pub key: LockKey,
    /// Its holders; several if they share it.
    pub holders: Vec<Holder>,
    /// The waiters in the store's own queue, in order. The store does not know other waiters.
    pub waiters: Vec<Waiter>,
}

impl LockState {
    /// Creates the state of a key, for backends.
    #[must_use]
    pub const fn new(key: LockKey, holders: Vec<Holder>, waiters: Vec<Waiter>) -> Self {
        Self { key, holders, waiters }
    }

    /// Returns whether the key has neither holders nor waiters.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }
}

/// A holder of a key.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Holder {
    /// The owner id; `None` while the key [rests](Self::resting), and for a holder that does not use dlock.
    pub owner: Option<OwnerId>,
    /// Its fencing token.
    pub token: FencingToken,
    /// When the lease ends unless it is renewed.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialized::seconds"))]
    pub expires_in: Duration,
    /// Which others may hold the key at the same time.
    pub mode: Mode,
    /// The current or former client: a `min_hold` outlasts its holder.
    pub client_info: Option<ClientInfo>,
    /// Whether nobody holds the key any more, but it is kept locked for the rest of its last hold's `min_hold` or
    /// `grace`.
    pub resting: bool,
    /// Whether its hold has been [revoked](super::Backend::revoke).
    pub revoked: bool,
    /// Where its token and its client info come from.
    pub shown_by: ShownBy,
}

/// Where the token and the client info of a [`Holder`] come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ShownBy {
    /// From the store. If a process passes its lease from task to task, that is its first hold, and the last token of
    /// the lease's block, which is the largest that any of its holds can have.
    #[default]
    Store,
    /// From the memory of this process: the hold of this moment.
    ThisProcess,
}

impl Holder {
    /// Creates an exclusive holder without client info, for backends.
    #[must_use]
    pub const fn new(owner: Option<OwnerId>, token: FencingToken, expires_in: Duration) -> Self {
        let mode = Mode::Exclusive;
        let resting = owner.is_none();
        let (client_info, revoked, shown_by) = (None, false, ShownBy::Store);
        Self { owner, token, expires_in, mode, client_info, resting, revoked, shown_by }
    }

    /// Sets the mode.
    #[must_use]
    pub const fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the client info.
    #[must_use]
    pub fn with_client_info(mut self, client_info: Option<ClientInfo>) -> Self {
        self.client_info = client_info;
        self
    }

    /// Sets whether the key rests. A holder without an owner id does, unless this says otherwise.
    #[must_use]
    pub const fn with_resting(mut self, resting: bool) -> Self {
        self.resting = resting;
        self
    }

    /// Sets whether the hold has been revoked.
    #[must_use]
    pub const fn with_revoked(mut self, revoked: bool) -> Self {
        self.revoked = revoked;
        self
    }
}

/// A waiter in the store's own queue.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Waiter {
    /// The owner id it will hold with; `None` for a waiter that does not use dlock.
    pub owner: Option<OwnerId>,
    /// Which others may hold the key at the same time.
    pub mode: Mode,
    /// The waiting client.
    pub client_info: Option<ClientInfo>,
}

impl Waiter {
    /// Creates a waiter, for backends.
    #[must_use]
    pub const fn new(owner: Option<OwnerId>, mode: Mode, client_info: Option<ClientInfo>) -> Self {
        Self { owner, mode, client_info }
    }
}
