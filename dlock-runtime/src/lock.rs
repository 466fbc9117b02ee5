//! Manual locking: the same engine as the attribute's, without the attribute.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::pin::pin;
use std::time::Duration;

use crate::backend::{Backend, Holder, Mode};
use crate::engine::{CallKind, Request, enter, enter_set, run_guarded};
use crate::error::{BackendError, LockError};
use crate::guard::{LockGuard, LockSet};
use crate::key::LockKey;
use crate::options::{LockOptions, OnLost, Wait};
use crate::registry::Registry;

/// A lock, or several together, that can be taken: made by [`Registry::lock`] and
/// [`Registry::lock_all`].
///
/// Its options are the attribute's, with the same defaults.
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
#[must_use = "a lock is not taken before `acquire` or `run`"]
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
        Self { registry, keys, backend: None, template: "(manual)", label: None, options }
    }

    /// The backend's registered name; the registry's default if not set.
    pub fn backend(mut self, name: impl Into<String>) -> Self {
        self.backend = Some(name.into());
        self
    }

    /// The lease's length: how soon others may enter after this process dies.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    /// How long to wait for a busy lock; zero tries once. One ttl and a second if not set.
    pub fn wait(mut self, limit: impl Into<Wait>) -> Self {
        self.options.wait = Some(limit.into());
        self
    }

    /// Is the lease renewed while the lock is held? True if not set.
    pub fn renew(mut self, renew: bool) -> Self {
        self.options.renew = renew;
        self
    }

    /// The longest time the lock may be held, renewed or not.
    pub fn max_hold(mut self, limit: Duration) -> Self {
        self.options.max_hold = Some(limit);
        self
    }

    /// The shortest time before others may enter, however soon it is given back.
    pub fn min_hold(mut self, least: Duration) -> Self {
        self.options.min_hold = Some(least);
        self
    }

    /// What happens to a body of [`run`](Lock::run) whose lease is lost.
    pub fn on_lost(mut self, policy: OnLost) -> Self {
        self.options.on_lost = policy;
        self
    }

    /// May [`run`](Lock::run) enter a lock that an enclosing body of the same task holds? True if
    /// not set.
    pub fn reentrant(mut self, reentrant: bool) -> Self {
        self.options.reentrant = reentrant;
        self
    }

    /// Shared with other readers, or exclusive; exclusive if not set.
    ///
    /// It is one of mode and [`permits`](Self::permits): the later call counts.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.options.mode = match mode {
            // One permit is an exclusive lock.
            Mode::Permits(permits) => Mode::permits(permits),
            mode => mode,
        };
        self
    }

    /// At most so many holders at once, a counting semaphore; 1 if not set.
    ///
    /// Each holder has a lease and a [fencing token](crate::FencingToken) of its own. The number is this
    /// call's: whoever names another number for the key is judged by that.
    pub fn permits(mut self, permits: NonZeroU32) -> Self {
        self.options.mode = Mode::permits(permits);
        self
    }

    /// First come, first served, over the tasks of all processes; false if not set.
    ///
    /// A waiter that died costs those behind it at most about half a second on backends that keep the
    /// queue as data, and its session's timeout on ZooKeeper and etcd.
    pub fn fair(mut self, fair: bool) -> Self {
        self.options.fair = fair;
        self
    }

    /// The low-cardinality name of this lock in traces and metrics; `(manual)` if not set.
    pub fn template(mut self, template: &'static str) -> Self {
        self.template = template;
        self
    }

    /// What operators see this lock is for, see [`Registry::inspect`]; the
    /// [template](Self::template) if not set.
    pub fn label(mut self, label: impl Into<Cow<'static, str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    fn request(&self, key: &LockKey) -> Result<Request, LockError> {
        let backend = self.backend.as_deref();
        let label = self.label.clone().unwrap_or(Cow::Borrowed(self.template));
        Request::new(&self.registry.0, key.clone(), self.template, label, &self.options, backend)
    }
}

impl Lock {
    pub(crate) fn one(registry: Registry, key: LockKey) -> Self {
        Self::new(registry, key)
    }

    /// Takes the lock.
    ///
    /// A bare acquire cannot enter a lock that the same task holds already, since its guard may
    /// outlive any body: use [`run`](Self::run) where calls nest.
    ///
    /// # Errors
    /// [`LockError::Busy`] when the lock is not free within the wait; [`LockError::Backend`] when the
    /// backend fails or does not answer; and those for options and keys that cannot be honoured.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no held lock and no place in a queue; what the backend may still
    /// execute is undone in the background.
    pub async fn acquire(self) -> Result<LockGuard, LockError> {
        let request = self.request(&self.keys)?;
        enter(&self.registry.0, &request, CallKind::Bare).await
    }

    /// Takes the lock, runs the body, gives the lock back: the same critical section as the
    /// attribute's, reentrancy included.
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire), then the body has not begun; [`LockError::Lost`] and
    /// [`LockError::HeldTooLong`] when the hold ended while the body ran. The body's own result, an
    /// error included, is the `Ok` value.
    ///
    /// # Cancel safety
    /// Dropping the future drops the body, then gives the lock back in the background.
    pub async fn run<F: Future>(self, body: F) -> Result<F::Output, LockError> {
        // Boxed as a whole: passed on by value, the body would double its size at every level.
        Box::pin(async move {
            let body = pin!(Some(body));
            let request = self.request(&self.keys)?;
            let guard = enter(&self.registry.0, &request, CallKind::Body).await?;
            run_guarded([guard], request.on_lost, body, |_| false).await
        })
        .await
    }

    /// Who holds the lock at this moment, as the backend sees it; one of them, if several do.
    ///
    /// # Errors
    /// [`LockError::Backend`], and those for a key or a backend name that cannot be used.
    ///
    /// # Cancel safety
    /// Cancel safe: it changes nothing.
    pub async fn inspect(self) -> Result<Option<Holder>, LockError> {
        let request = self.request(&self.keys)?;
        let answer = request.backend.store.inspect(&request.key).await;
        answer.map_err(|source| failed(&request, source))
    }

    /// Ends the holds of the lock without a danger to anybody: for operators. True if there was one.
    ///
    /// They are not renewed any more: a holder ends as [lost](LockError::Lost) at its next renewal, and the
    /// lock is free when the holder has given it back, or its lease is over.
    ///
    /// # Errors
    /// [`LockError::Backend`], and those for a key or a backend name that cannot be used.
    ///
    /// # Cancel safety
    /// When the future is dropped the backend may or may not have executed it.
    pub async fn revoke(self) -> Result<bool, LockError> {
        let request = self.request(&self.keys)?;
        let answer = request.backend.store.revoke(&request.key).await;
        answer.map_err(|source| failed(&request, source))
    }

    /// Ends the lock's lease, whoever holds it, and those of all who share it: for operators. True if there was
    /// one.
    ///
    /// The holder's body ends as lost at its next renewal at the latest; until then it may still be
    /// running. Only a [fencing token](crate::FencingToken) keeps its writes out: where that is not sure,
    /// [`revoke`](Self::revoke) instead.
    ///
    /// # Errors
    /// [`LockError::Backend`], and those for a key or a backend name that cannot be used.
    ///
    /// # Cancel safety
    /// When the future is dropped the backend may or may not have executed it.
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

    /// Takes all locks or none, equal keys once. The wait counts for all of them together.
    ///
    /// Where the [store can](crate::backend::Capabilities::atomic_sets) it is one step: nothing is held while one
    /// of them is waited for. Elsewhere they are taken one after the other in the order of their keys, and given
    /// back if one of them is busy for too long.
    ///
    /// # Errors
    /// Those of [`Lock::acquire`], for the first lock that could not be taken; those taken before it
    /// are given back. No key at all is [`LockError::InvalidKey`].
    ///
    /// # Cancel safety
    /// As [`Lock::acquire`].
    pub async fn acquire(self) -> Result<LockSet, LockError> {
        self.take(CallKind::Bare).await
    }

    /// Takes all locks, runs the body, gives them back; see [`Lock::run`].
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire) and of [`Lock::run`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the body, then gives the locks back in the background.
    pub async fn run<F: Future>(self, body: F) -> Result<F::Output, LockError> {
        Box::pin(async move {
            let body = pin!(Some(body));
            let on_lost = self.options.on_lost;
            let set = self.take(CallKind::Body).await?;
            run_guarded(set.into_guards(), on_lost, body, |_| false).await
        })
        .await
    }

    async fn take(self, kind: CallKind) -> Result<LockSet, LockError> {
        let requests =
            self.keys.iter().map(|key| self.request(key)).collect::<Result<Vec<_>, _>>()?;
        enter_all(&self.registry, requests, kind).await
    }
}

/// Takes several locks: in one step where the store can, otherwise in the order of their keys, and what was taken is
/// given back when one fails.
pub(crate) async fn enter_all(
    registry: &Registry,
    mut requests: Vec<Request>,
    kind: CallKind,
) -> Result<LockSet, LockError> {
    if requests.is_empty() {
        return Err(LockError::invalid_key(&LockKey::from(""), "no key was given"));
    }
    requests.sort_by(|one, other| one.key.cmp(&other.key));
    requests.dedup_by(|one, other| one.key == other.key);
    if let Some(taken) = enter_set(&registry.0, &requests, kind).await {
        return taken.map(LockSet::new);
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
                // Others may have them before this caller tries again.
                let _ = LockSet::new(guards).release().await;
                return Err(error);
            }
        }
    }
    Ok(LockSet::new(guards))
}

fn failed(request: &Request, source: BackendError) -> LockError {
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
