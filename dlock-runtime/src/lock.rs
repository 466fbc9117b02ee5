//! Manual locking: the attribute's engine as method calls.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::pin::pin;
use std::time::Duration;

use crate::backend::{Backend, Holder, Mode};
use crate::engine::{CallKind, MANUAL, Request, enter, enter_set, run_guarded};
use crate::error::{BackendError, LockError};
use crate::guard::{LockGuard, LockSet};
use crate::key::LockKey;
use crate::options::{Handover, LockOptions, OnLost, Wait};
use crate::registry::Registry;

/// A lock, or several locks together, not yet acquired; created by [`Registry::lock`] and
/// [`Registry::lock_all`].
///
/// It has the attribute's options, with the same defaults.
///
/// ```
/// # use dlock_runtime::{Registry, backend::Memory};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let locks = Registry::builder().backend("memory", Memory::new()).build()?;
/// let sold = locks
///     .lock("product:1")
///     .ttl(Duration::from_secs(5))
///     .wait(Duration::from_secs(2))
///     .run(async { 1 })
///     .await?;
/// # assert_eq!(sold, 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "a lock is not acquired before `acquire` or `run`"]
#[derive(Clone)]
pub struct Lock<K = LockKey> {
    registry: Registry,
    keys: K,
    backend: Option<String>,
    template: &'static str,
    label: Option<Cow<'static, str>>,
    options: LockOptions,
}

impl<K> Lock<K> {
    fn new(registry: Registry, keys: K) -> Self {
        let options = LockOptions::DEFAULT;
        Self { registry, keys, backend: None, template: MANUAL, label: None, options }
    }

    /// Sets the backend by its registered name; the registry's default if not set.
    pub fn backend(mut self, name: impl Into<String>) -> Self {
        self.backend = Some(name.into());
        self
    }

    /// Sets the length of the lease: how soon others can acquire the lock after this process dies. The
    /// registry's default if not set.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    /// Sets how long to wait for a contended lock; zero tries once. One ttl and a second if not set.
    pub fn wait(mut self, limit: impl Into<Wait>) -> Self {
        self.options.wait = Some(limit.into());
        self
    }

    /// Sets whether the lease is renewed while the lock is held; true if not set.
    pub fn renew(mut self, renew: bool) -> Self {
        self.options.renew = renew;
        self
    }

    /// Sets the longest time the lock may be held, renewed or not.
    pub fn max_hold(mut self, limit: Duration) -> Self {
        self.options.max_hold = Some(limit);
        self
    }

    /// Sets the shortest time before others can acquire the lock, however soon it is released.
    pub fn min_hold(mut self, least: Duration) -> Self {
        self.options.min_hold = Some(least);
        self
    }

    /// Sets the lock-delay: for how long nobody else can acquire the lock after its hold ended before it was released;
    /// none if not set.
    ///
    /// Use it for a resource that cannot check a [fencing token](crate::FencingToken). What the last holder had sent to
    /// the resource before its lock was lost, or before it died, has this long to arrive. The store is asked for
    /// the ttl and the grace, and the hold ends with its ttl. A body that is dropped, stopped or panics keeps the lock for
    /// its grace, too. A body that ends, and the release or drop of a bare guard, free the lock at once.
    ///
    /// It needs a backend that supports [`min_hold`](Self::min_hold) and whose locks are not bound to a
    /// [session](crate::backend::Capabilities::session).
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.grace = Some(grace);
        self
    }

    /// Sets what happens to a body of [`run`](Lock::run) that loses its lease.
    pub fn on_lost(mut self, policy: OnLost) -> Self {
        self.options.on_lost = policy;
        self
    }

    /// Sets whether [`run`](Lock::run) may enter a lock that an enclosing body of the same task
    /// holds; true if not set.
    pub fn reentrant(mut self, reentrant: bool) -> Self {
        self.options.reentrant = reentrant;
        self
    }

    /// Sets whether the lock is exclusive or shared with other readers; exclusive if not set.
    ///
    /// `mode` and [`permits`](Self::permits) set the same option: the last call wins.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.options.mode = match mode {
            // One permit is an exclusive lock.
            Mode::Permits(permits) => Mode::permits(permits),
            mode => mode,
        };
        self
    }

    /// Allows at most this many holders at once, as a counting semaphore; 1 if not set.
    ///
    /// Each holder has its own lease and its own [fencing token](crate::FencingToken). The number applies to
    /// this call only: a call that sets a different number for the key is judged by its own.
    pub fn permits(mut self, permits: NonZeroU32) -> Self {
        self.options.mode = Mode::permits(permits);
        self
    }

    /// Serves waiters first come, first served, across the tasks of all processes; false if not set.
    ///
    /// A waiter that dies delays those behind it: by about half a second at most on backends that keep the
    /// queue as data, by its session timeout on ZooKeeper, and by its own ttl on etcd.
    pub fn fair(mut self, fair: bool) -> Self {
        self.options.fair = fair;
        self
    }

    /// Sets how far this process may pass the lease from task to task before the store decides who is next; the
    /// registry's default if not set.
    ///
    /// A lock that is shared, [`fair`](Self::fair), in a set, or has a [`min_hold`](Self::min_hold) or
    /// [`grace`](Self::grace) never passes its lease. With [`Handover::OFF`] the call neither passes a lease nor is passed one.
    pub fn handover(mut self, handover: Handover) -> Self {
        self.options.handover = Some(handover);
        self
    }

    /// Sets the low-cardinality name of this lock in traces and metrics; `(manual)` if not set.
    pub fn template(mut self, template: &'static str) -> Self {
        self.template = template;
        self
    }

    /// Sets what operators see as the lock's purpose, see [`Registry::inspect`]; the
    /// [template](Self::template) if not set.
    pub fn label(mut self, label: impl Into<Cow<'static, str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    fn request(&self, key: &LockKey) -> Result<Request<'_>, LockError> {
        let backend = self.backend.as_deref();
        let label = self.label.clone().unwrap_or(Cow::Borrowed(self.template));
        Request::new(&self.registry.0, key.clone(), self.template, label, &self.options, backend)
    }
}

impl Lock {
    pub(crate) fn one(registry: Registry, key: LockKey) -> Self {
        Self::new(registry, key)
    }

    /// Acquires the lock.
    ///
    /// A bare acquire cannot enter a lock that the same task already holds, because its guard may
    /// outlive any body. Use [`run`](Self::run) for nested calls.
    ///
    /// # Errors
    /// [`LockError::Busy`] if the lock does not become free within the wait; [`LockError::Backend`] if the
    /// backend fails or does not answer; other variants for invalid keys and unsupported options.
    ///
    /// # Cancel safety
    /// Dropping the future leaves neither a held lock nor a queue position behind. Whatever the
    /// backend may still execute is undone in the background.
    pub async fn acquire(self) -> Result<LockGuard, LockError> {
        let request = self.request(&self.keys)?;
        enter(&self.registry.0, &request, CallKind::Bare).await
    }

    /// Acquires the lock, runs the body and releases the lock: the same critical section as the
    /// attribute's, reentrancy included.
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire), before the body has begun; [`LockError::Lost`],
    /// [`LockError::HeldTooLong`] and [`LockError::ShutDown`] if the hold ended while the body ran. Otherwise the body's own result,
    /// even if it is an error, is the `Ok` value. After a loss it is returned only with [`OnLost::Keep`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the body, then releases the lock in the background.
    pub async fn run<F: Future>(self, body: F) -> Result<F::Output, LockError> {
        // Boxed as a whole: a body passed on by value would double the future's size at every level.
        Box::pin(async move {
            let body = pin!(Some(body));
            let request = self.request(&self.keys)?;
            let guard = enter(&self.registry.0, &request, CallKind::Body).await?;
            run_guarded([guard], request.options.on_lost, body, |_| false).await
        })
        .await
    }

    /// Returns the current holder as the backend sees it, or as [this process knows it](crate::backend::ShownBy); one of
    /// them, if several hold the lock.
    ///
    /// # Errors
    /// [`LockError::Backend`]; other variants for an invalid key or an unknown backend.
    ///
    /// # Cancel safety
    /// Cancel safe: it changes nothing.
    pub async fn inspect(self) -> Result<Option<Holder>, LockError> {
        let request = self.request(&self.keys)?;
        let answer = request.backend.store.inspect(&request.key).await;
        let mut holder = answer.map_err(|source| failed(&request, source))?;
        if let Some(holder) = &mut holder {
            self.registry.0.show_own(request.backend.index, &request.key, holder);
        }
        Ok(holder)
    }

    /// Ends the holds of the lock safely, for operators. Returns whether there was one.
    ///
    /// Revoked holds are no longer renewed: each holder ends as [lost](LockError::Lost) at its next renewal. The
    /// lock is free once the holder has released it or its lease has ended.
    ///
    /// # Errors
    /// [`LockError::Backend`]; other variants for an invalid key or an unknown backend.
    ///
    /// # Cancel safety
    /// If the future is dropped, the backend may or may not have executed the request.
    pub async fn revoke(self) -> Result<bool, LockError> {
        let request = self.request(&self.keys)?;
        let answer = request.backend.store.revoke(&request.key).await;
        answer.map_err(|source| failed(&request, source))
    }

    /// Frees the lock at once, whoever holds or shares it, for operators. Returns whether there was a hold.
    ///
    /// A holder's body ends as lost at its next renewal at the latest and may keep running until then. Only a
    /// [fencing token](crate::FencingToken) keeps its writes out. If the writes are not fenced, use
    /// [`revoke`](Self::revoke) instead.
    ///
    /// # Errors
    /// [`LockError::Backend`]; other variants for an invalid key or an unknown backend.
    ///
    /// # Cancel safety
    /// If the future is dropped, the backend may or may not have executed the request.
    pub async fn force_release(self) -> Result<bool, LockError> {
        let request = self.request(&self.keys)?;
        let answer = request.backend.store.force_release(&request.key).await;
        answer.map_err(|source| failed(&request, source))
    }
}

impl Lock<Vec<LockKey>> {
    pub(crate) fn all(registry: Registry, keys: Vec<LockKey>) -> Self {
        Self::new(registry, keys)
    }

    /// Acquires all locks or none; duplicate keys count once. The wait covers all of them together.
    ///
    /// If the [store supports it](crate::backend::Capabilities::atomic_sets), this is one step, and nothing is held
    /// while the call waits. Otherwise the locks are acquired one after the other in key order, and released if one
    /// of them stays busy for too long.
    ///
    /// # Errors
    /// Those of [`Lock::acquire`], for the first lock that could not be acquired; the locks acquired
    /// before it are released. An empty set of keys is [`LockError::InvalidKey`].
    ///
    /// # Cancel safety
    /// Same as [`Lock::acquire`].
    pub async fn acquire(self) -> Result<LockSet, LockError> {
        self.acquire_all(CallKind::Bare).await
    }

    /// Acquires all locks, runs the body and releases them; see [`Lock::run`].
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire) and of [`Lock::run`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the body, then releases the locks in the background.
    pub async fn run<F: Future>(self, body: F) -> Result<F::Output, LockError> {
        Box::pin(async move {
            let body = pin!(Some(body));
            let on_lost = self.options.on_lost;
            let set = self.acquire_all(CallKind::Body).await?;
            run_guarded(set.into_guards(), on_lost, body, |_| false).await
        })
        .await
    }

    async fn acquire_all(self, kind: CallKind) -> Result<LockSet, LockError> {
        let requests =
            self.keys.iter().map(|key| self.request(key)).collect::<Result<Vec<_>, _>>()?;
        enter_all(&self.registry, requests, kind).await
    }
}

/// Acquires several locks: in one step if the store supports it, otherwise in key order. If one fails, those already
/// acquired are released.
pub(crate) async fn enter_all(
    registry: &Registry,
    mut requests: Vec<Request<'_>>,
    kind: CallKind,
) -> Result<LockSet, LockError> {
    if requests.is_empty() {
        return Err(LockError::invalid_key(&LockKey::from(""), "no key was given"));
    }
    requests.sort_by(|one, other| one.key.cmp(&other.key));
    requests.dedup_by(|one, other| one.key == other.key);
    if let Some(acquired) = enter_set(&registry.0, &requests, kind).await {
        return acquired.map(LockSet::new);
    }
    let began = tokio::time::Instant::now();
    let mut guards = Vec::with_capacity(requests.len());
    for mut request in requests {
        if let Wait::UpTo(limit) = request.wait {
            request.wait = Wait::UpTo(limit.saturating_sub(began.elapsed()));
        }
        match enter(&registry.0, &request, kind).await {
            Ok(guard) => guards.push(guard),
            Err(error) => {
                // Awaited, so that others can acquire them before this caller retries.
                let _ = LockSet::new(guards).release().await;
                return Err(error);
            }
        }
    }
    Ok(LockSet::new(guards))
}

fn failed(request: &Request<'_>, source: BackendError) -> LockError {
    LockError::Backend { key: request.key.clone(), source }
}

impl<K: fmt::Debug> fmt::Debug for Lock<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("keys", &self.keys)
            .field("backend", &self.backend)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
