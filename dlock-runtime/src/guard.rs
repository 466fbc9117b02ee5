//! Held locks: [`LockGuard`] for one key, [`LockSet`] for several.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::backend::Mode;
use crate::engine::{Ending, Hold, Inside, Nested, give_back, give_back_later};
use crate::error::LockError;
use crate::key::LockKey;
use crate::token::FencingToken;

/// A lock that is held.
///
/// While it lives its lease is renewed (unless `renew(false)`). Give it back with
/// [`release`](Self::release), which says whether it was held to the end. Dropping it gives it back
/// in the background; [`Registry::shutdown`](crate::Registry::shutdown) waits for that.
///
/// A guard does not stop the code that runs beside it: watch [`lost`](Self::lost), or let the
/// attribute or [`run`](crate::Lock::run) do it.
#[must_use = "a lock is given back when its guard is dropped"]
pub struct LockGuard {
    hold: Arc<Hold>,
    stake: Stake,
}

/// What dropping a guard gives back.
enum Stake {
    /// The lease.
    Lease,
    /// It has been given back.
    GivenBack,
    /// The place inside an enclosing hold of the same task.
    Nested(Nested),
    /// Nothing: a view of somebody else's guard, for a body.
    View,
}

impl LockGuard {
    pub(crate) fn leased(hold: Arc<Hold>) -> Self {
        Self { hold, stake: Stake::Lease }
    }

    pub(crate) fn nested(nested: Nested) -> Self {
        Self { hold: Arc::clone(nested.hold()), stake: Stake::Nested(nested) }
    }

    pub(crate) fn view(&self) -> Self {
        Self { hold: Arc::clone(&self.hold), stake: Stake::View }
    }

    pub(crate) fn hold(&self) -> &Arc<Hold> {
        &self.hold
    }

    /// As what it holds the key.
    pub(crate) fn mode(&self) -> Mode {
        match &self.stake {
            Stake::Nested(nested) => nested.mode(),
            Stake::Lease | Stake::GivenBack | Stake::View => self.hold.claim.mode,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Ending> {
        match &self.stake {
            Stake::Nested(nested) => nested.check(),
            Stake::Lease | Stake::GivenBack | Stake::View => self.hold.check(),
        }
    }

    pub(crate) async fn ended(&self) -> Ending {
        match &self.stake {
            Stake::Nested(nested) => nested.ended().await,
            Stake::Lease | Stake::GivenBack | Stake::View => self.hold.ended().await,
        }
    }

    /// The body that a nested call entered under.
    pub(crate) fn entered_under(&self) -> Option<&Arc<Inside>> {
        match &self.stake {
            Stake::Nested(nested) => Some(nested.entered_under()),
            Stake::Lease | Stake::GivenBack | Stake::View => None,
        }
    }

    /// Must its body end whatever became of the lease? Its `max_hold` has passed, or the body has ended that it
    /// entered under.
    pub(crate) fn must_stop(&self) -> bool {
        match &self.stake {
            Stake::Nested(nested) => nested.is_overdue() || nested.is_closed(),
            Stake::Lease | Stake::GivenBack | Stake::View => self.hold.is_overdue(),
        }
    }

    /// Resolves when [`must_stop`](Self::must_stop) is true.
    pub(crate) async fn stopped(&self) {
        let overdue_at = match &self.stake {
            Stake::Nested(nested) => nested.overdue_at(),
            Stake::Lease | Stake::GivenBack | Stake::View => self.hold.overdue_at(),
        };
        loop {
            let changed = self.hold.changed();
            if self.must_stop() {
                return;
            }
            match overdue_at {
                // A millisecond later: a timer may fire a shade too early.
                Some(at) => {
                    let at = at + Duration::from_millis(1);
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// The key that is held.
    #[must_use]
    pub fn key(&self) -> &LockKey {
        &self.hold.claim.key
    }

    /// The token of this hold; a nested call has that of the hold it entered under.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        self.hold.token
    }

    /// How long the lease is surely valid from now if it is not renewed again; zero once it is lost.
    ///
    /// It is measured by this process's own clock from before the lease was asked for, less an
    /// allowance for drift.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.hold.remaining()
    }

    /// Is the lock held at this moment, as far as this process can prove?
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.check().is_ok()
    }

    /// Lets the lock be held for so long from now at least: its `max_hold` is moved if it would end sooner,
    /// and a lease with `renew = false` is renewed until then. It is proved once more at once.
    ///
    /// Should the process die, the lock is free within one ttl all the same. A `max_hold` of a nested call
    /// stays as it is.
    ///
    /// # Errors
    /// [`LockError::Lost`] or [`LockError::HeldTooLong`] if the lock is no longer held;
    /// [`LockError::Unsupported`] for more than a year, before anything is sent.
    ///
    /// # Cancel safety
    /// Cancel safe: it is extended before anything is awaited, and proved in the background.
    pub async fn extend(&self, least: Duration) -> Result<(), LockError> {
        self.hold.extend(least).await
    }

    /// Resolves when the lock is no longer held: its lease was lost, or `max_hold` has passed.
    /// Never resolves otherwise.
    ///
    /// # Cancel safety
    /// Cancel safe: calling it again sees the same.
    pub async fn lost(&self) -> LockError {
        let ending = self.ended().await;
        self.hold.error(ending, false)
    }

    /// Gives the lock back and waits until the backend has said so.
    ///
    /// # Errors
    /// [`LockError::Lost`] if the lock was no longer ours. A backend that cannot be reached within a
    /// second is no error: the release goes on in the background until the lease has ended.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lock back in the background.
    pub async fn release(mut self) -> Result<(), LockError> {
        match std::mem::replace(&mut self.stake, Stake::GivenBack) {
            Stake::Lease => give_back(Arc::clone(&self.hold)).await,
            Stake::Nested(nested) => match nested.check_outer() {
                Ok(()) => Ok(()),
                Err(ending) => Err(self.hold.error(ending, true)),
            },
            Stake::View | Stake::GivenBack => Ok(()),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Stake::Lease = self.stake {
            give_back_later(Arc::clone(&self.hold));
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("key", self.key())
            .field("backend", &self.hold.backend.name)
            .field("token", &self.fencing_token())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

/// Several locks that are held together: all or nothing.
///
/// They were taken in one canonical order (that of the keys' bytes), so that two callers that want
/// the same locks in different orders never wait for each other in a circle.
#[must_use = "locks are given back when their set is dropped"]
#[derive(Debug)]
pub struct LockSet {
    guards: Vec<LockGuard>,
}

impl LockSet {
    pub(crate) fn new(guards: Vec<LockGuard>) -> Self {
        Self { guards }
    }

    pub(crate) fn into_guards(self) -> Vec<LockGuard> {
        self.guards
    }

    /// The single locks, in the order of their keys; equal keys are one.
    pub fn holds(&self) -> &[LockGuard] {
        &self.guards
    }

    /// The guard of this key, if the set holds it.
    #[must_use]
    pub fn get(&self, key: &LockKey) -> Option<&LockGuard> {
        self.guards.iter().find(|guard| guard.key() == key)
    }

    /// How long *all* leases are surely valid from now; see [`LockGuard::remaining`].
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.guards.iter().map(LockGuard::remaining).min().unwrap_or_default()
    }

    /// Lets all locks be held for so long from now at least; see [`LockGuard::extend`].
    ///
    /// # Errors
    /// The first loss among them.
    ///
    /// # Cancel safety
    /// Cancel safe, as [`LockGuard::extend`].
    pub async fn extend(&self, least: Duration) -> Result<(), LockError> {
        let all = self.guards.iter().map(|guard| guard.extend(least));
        join_all(all).await.into_iter().collect()
    }

    /// Resolves when the first of the locks is no longer held; see [`LockGuard::lost`].
    ///
    /// # Cancel safety
    /// Cancel safe: calling it again sees the same.
    pub async fn lost(&self) -> LockError {
        let all = self.guards.iter().map(|guard| Box::pin(guard.lost()));
        futures_util::future::select_all(all).await.0
    }

    /// Gives all locks back at once and waits until the backend has said so.
    ///
    /// # Errors
    /// The first loss among them; see [`LockGuard::release`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the rest back in the background.
    pub async fn release(self) -> Result<(), LockError> {
        give_all_back(self.guards).await
    }
}

/// Gives several locks back at once; the first loss among them is the result.
pub(crate) async fn give_all_back(
    guards: impl AsRef<[LockGuard]> + IntoIterator<Item = LockGuard>,
) -> Result<(), LockError> {
    let mut guards = guards.into_iter();
    match (guards.next(), guards.next()) {
        (None, _) => Ok(()),
        (Some(only), None) => only.release().await,
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(guards).map(LockGuard::release);
            join_all(all).await.into_iter().collect()
        }
    }
}
