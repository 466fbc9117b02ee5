//! Held locks: [`LockGuard`] for one key, [`LockSet`] for several.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backend::Mode;
use crate::clock::Moment;
use crate::engine::{Ending, Hold, HoldState, Inside, Nested, States, release, release_later};
use crate::error::LockError;
use crate::key::LockKey;
use crate::timer;
use crate::token::FencingToken;

/// A held lock.
///
/// The lease is renewed while the guard is alive (unless `renew(false)`).
/// [`release`](Self::release) releases the lock and reports whether it was held to the end.
/// Dropping the guard releases the lock in the background, or passes its lease on;
/// [`Registry::shutdown`](crate::Registry::shutdown) waits for that.
///
/// A guard does not stop the code that runs beside it. Watch [`lost`](Self::lost), or let the
/// attribute or [`run`](crate::Lock::run) stop the body.
#[must_use = "a lock is released when its guard is dropped"]
pub struct LockGuard {
    hold: Arc<Hold>,
    access: Access,
}

/// What dropping a guard releases.
enum Access {
    /// The lease.
    Lease,
    /// Nothing: it has been released.
    Released,
    /// A nested call's entry into an enclosing hold of the same task.
    Nested(Nested),
    /// Nothing: a body's view of another guard.
    View,
}

impl LockGuard {
    pub(crate) fn leased(hold: Arc<Hold>) -> Self {
        Self { hold, access: Access::Lease }
    }

    pub(crate) fn nested(nested: Nested) -> Self {
        Self { hold: Arc::clone(nested.hold()), access: Access::Nested(nested) }
    }

    pub(crate) fn view(&self) -> Self {
        Self { hold: Arc::clone(&self.hold), access: Access::View }
    }

    pub(crate) fn hold(&self) -> &Arc<Hold> {
        &self.hold
    }

    /// The mode in which it holds the key.
    pub(crate) fn mode(&self) -> Mode {
        match &self.access {
            Access::Nested(nested) => nested.mode(),
            Access::Lease | Access::Released | Access::View => self.hold.claim.mode,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Ending> {
        match &self.access {
            Access::Nested(nested) => nested.check(),
            Access::Lease | Access::Released | Access::View => self.hold.check(),
        }
    }

    pub(crate) async fn ended(&self) -> Ending {
        match &self.access {
            Access::Nested(nested) => nested.ended().await,
            Access::Lease | Access::Released | Access::View => self.hold.ended().await,
        }
    }

    /// The body that a nested call entered under.
    pub(crate) fn entered_under(&self) -> Option<&Arc<Inside>> {
        match &self.access {
            Access::Nested(nested) => Some(nested.entered_under()),
            Access::Lease | Access::Released | Access::View => None,
        }
    }

    /// Must its body end, whatever the state of the lease? True if its `max_hold` has passed, if the body that it
    /// entered under has ended, or if a drain stops all bodies.
    pub(crate) fn must_stop(&self) -> bool {
        let is_over = match &self.access {
            Access::Nested(nested) => nested.is_overdue() || nested.is_closed(),
            Access::Lease | Access::Released | Access::View => self.hold.is_overdue(),
        };
        is_over || self.hold.engine.stop_bodies.is_cancelled()
    }

    /// Resolves when [`must_stop`](Self::must_stop) is true.
    pub(crate) async fn stopped(&self) {
        let overdue_at = match &self.access {
            Access::Nested(nested) => nested.overdue_at(),
            Access::Lease | Access::Released | Access::View => self.hold.overdue_at(),
        };
        let drained = self.hold.engine.stop_bodies.cancelled();
        let stopped = async {
            loop {
                let changed = self.hold.changed();
                if self.must_stop() {
                    return;
                }
                match overdue_at {
                    // A millisecond later, because a timer may fire slightly too early.
                    Some(at) => {
                        let at = at + Duration::from_millis(1);
                        let _ = timer::timeout_at(at, changed).await;
                    }
                    None => changed.await,
                }
            }
        };
        tokio::select! {
            biased;
            () = drained => {}
            () = stopped => {}
        }
    }

    /// Returns the key that is held.
    #[must_use]
    pub fn key(&self) -> &LockKey {
        &self.hold.claim.key
    }

    /// Returns the token of this hold; a nested call has the token of the hold it entered under.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        self.hold.token
    }

    /// Returns how much longer the lease is provably valid without another renewal; zero once it is
    /// lost.
    ///
    /// This process's own clock measures it, from before the lease was requested, less an allowance
    /// for drift.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.hold.remaining()
    }

    /// Returns whether this process can prove that the lock is held right now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.check().is_ok()
    }

    /// Returns how safe the hold is now.
    #[must_use]
    pub fn state(&self) -> HoldState {
        match self.check() {
            Ok(()) => self.hold.state_at(&Moment::now()).0,
            Err(ending) => ending.into(),
        }
    }

    /// Returns the changes of the hold's state, beginning with the present one: `Held`, `AtRisk` while a renewal is
    /// overdue, and `Lost` or `Ended` at last. Under a nested call's guard, they are those of the outer hold.
    ///
    /// ```
    /// # use dlock_runtime::{HoldState, Registry, backend::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = Registry::builder().backend("memory", Memory::new()).build()?;
    /// let guard = locks.lock("product:1").acquire().await?;
    /// let mut states = guard.states();
    /// assert_eq!(states.next().await, Some(HoldState::Held));
    /// guard.release().await?;
    /// assert_eq!(states.next().await, Some(HoldState::Ended));
    /// assert_eq!(states.next().await, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn states(&self) -> States {
        States::new(Arc::clone(&self.hold))
    }

    /// Returns a token that is cancelled when the lock is lost, released or dropped.
    ///
    /// Pass it to work that ends by itself when it is told to. Nobody waits for that work: the lock may be somebody
    /// else's before it has ended, so let it be [spawned](Self::spawn) under the lock instead if that matters.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.hold.cancellation_token()
    }

    /// Spawns a task under the lock. It stops when the hold ends, and the lock is released only after it has stopped.
    ///
    /// The task is polled only while the lock is provably held. When the lock is lost, released or dropped, its future
    /// is dropped at its next await point, and the handle gives `None`. A release waits for that, however long it takes,
    /// and the lease is renewed meanwhile: a task that blocks its thread keeps the lock. So await the handle before the release if the task has to finish. Under a nested call's guard,
    /// the task belongs to the outer hold.
    ///
    /// As with any spawned task, no call in it is nested under the lock.
    ///
    /// ```
    /// # use dlock_runtime::{Registry, backend::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = Registry::builder().backend("memory", Memory::new()).build()?;
    /// let guard = locks.lock("report").acquire().await?;
    /// let page = guard.spawn(async { "a page" });
    /// let endless = guard.spawn(std::future::pending::<()>());
    /// assert_eq!(page.await?, Some("a page"));
    /// guard.release().await?;
    /// assert_eq!(endless.await?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.hold.spawn(future)
    }

    /// Allows the lock to be held for at least this long from now.
    ///
    /// A `max_hold` that would pass sooner is moved to that time, and a lease with `renew = false` is renewed until
    /// then. The lease is renewed once right away. If the process dies, the lock is still free within one ttl. The
    /// `max_hold` of a nested call does not change.
    ///
    /// # Errors
    /// [`LockError::Lost`] or [`LockError::HeldTooLong`] if the lock is no longer held;
    /// [`LockError::Unsupported`] for more than a year, before anything is sent.
    ///
    /// # Cancel safety
    /// Cancel safe: the hold is extended before anything is awaited, and renewed in the background.
    pub async fn extend(&self, least: Duration) -> Result<(), LockError> {
        self.hold.extend(least).await
    }

    /// Resolves when the lock is no longer held: its lease was lost, `max_hold` has passed, or a
    /// [drain](crate::Registry::drain) ended it. Never resolves otherwise.
    ///
    /// # Cancel safety
    /// Cancel safe: calling it again sees the same.
    pub async fn lost(&self) -> LockError {
        let ending = self.ended().await;
        self.hold.error(ending, false)
    }

    /// Releases the lock and waits for the backend to confirm it, or [passes](crate::guide::contention) its lease to the
    /// next task of this process without asking the backend.
    ///
    /// # Errors
    /// [`LockError::Lost`] if the lock was no longer held; [`LockError::HeldTooLong`] if `max_hold` had passed and a
    /// backend whose locks are bound to a [session](crate::backend::Capabilities::session) had therefore released it
    /// already. A backend that cannot be reached within a second is not an error: the release continues in the
    /// background until the lease has ended.
    ///
    /// # Cancel safety
    /// Dropping the future releases the lock in the background.
    pub async fn release(mut self) -> Result<(), LockError> {
        match std::mem::replace(&mut self.access, Access::Released) {
            Access::Lease => release(&self.hold).await,
            Access::Nested(nested) => match nested.check_outer() {
                Ok(()) => Ok(()),
                Err(ending) => Err(self.hold.error(ending, true)),
            },
            Access::View | Access::Released => Ok(()),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Access::Lease = self.access {
            release_later(Arc::clone(&self.hold));
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("key", self.key())
            .field("backend", &self.hold.backend().name)
            .field("token", &self.fencing_token())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

/// Several locks that are held together: all or none.
///
/// They are acquired in one canonical order (the byte order of the keys), so two callers that ask
/// for the same locks in different orders never deadlock.
#[must_use = "locks are released when their set is dropped"]
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

    /// Returns the individual locks in key order; duplicate keys appear once.
    pub fn holds(&self) -> &[LockGuard] {
        &self.guards
    }

    /// Returns the guard of this key, if the set holds it.
    #[must_use]
    pub fn get(&self, key: &LockKey) -> Option<&LockGuard> {
        self.guards.iter().find(|guard| guard.key() == key)
    }

    /// Returns how much longer *all* leases are provably valid; see [`LockGuard::remaining`].
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.guards.iter().map(LockGuard::remaining).min().unwrap_or_default()
    }

    /// Allows all locks to be held for at least this long from now; see [`LockGuard::extend`].
    ///
    /// # Errors
    /// The first loss among them.
    ///
    /// # Cancel safety
    /// Cancel safe, like [`LockGuard::extend`].
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

    /// Releases all locks concurrently and waits for the backend to confirm it.
    ///
    /// # Errors
    /// The first loss among them; see [`LockGuard::release`].
    ///
    /// # Cancel safety
    /// Dropping the future releases the rest in the background.
    pub async fn release(self) -> Result<(), LockError> {
        release_all(self.guards).await
    }
}

/// Releases several locks concurrently; returns the first loss among them.
pub(crate) async fn release_all(
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
