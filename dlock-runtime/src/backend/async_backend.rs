//! The backend trait with plain async methods.

use super::{
    Answer, Answers, Attempt, Backend, Capabilities, Claim, Holder, LockState, Release, Released,
    Renewal, SetAttempt, Watch,
};
use crate::error::BackendError;
use crate::key::LockKey;

/// [`Backend`] with plain `async fn`s: implement this for a store that is reached over a network.
///
/// Every implementation is also a [`Backend`], and each method means the same as there. A store that always answers
/// without awaiting should implement [`Backend`] directly, which saves one allocation per request.
///
/// A backend that wraps another one and counts acquires:
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use dlock_runtime::backend::{
///     AsyncBackend, Attempt, Backend, Capabilities, Claim, Holder, LockState, Memory, Release,
///     Released, Renewal, Watch,
/// };
/// use dlock_runtime::{BackendError, LockKey, Registry};
///
/// #[derive(Clone)]
/// struct Counted {
///     store: Memory,
///     acquires: Arc<AtomicU64>,
/// }
///
/// impl AsyncBackend for Counted {
///     fn kind(&self) -> &'static str {
///         "counted"
///     }
///     fn capabilities(&self) -> Capabilities {
///         Capabilities::LEASES.with_shared_by_processes(false)
///     }
///     async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
///         self.acquires.fetch_add(1, Ordering::Relaxed);
///         self.store.try_acquire(claim).await
///     }
///     async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
///         self.store.renew(claim).await
///     }
///     async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
///         self.store.release(claim, release).await
///     }
///     async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
///         self.store.watch(key).await
///     }
///     async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
///         self.store.inspect(key).await
///     }
///     async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
///         self.store.list(prefix).await
///     }
///     async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
///         self.store.revoke(key).await
///     }
///     async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
///         self.store.force_release(key).await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let counted = Counted { store: Memory::new(), acquires: Arc::default() };
/// let locks = Registry::builder().backend("counted", counted.clone()).build()?;
/// locks.lock("product:1").acquire().await?.release().await?;
/// assert_eq!(counted.acquires.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
pub trait AsyncBackend: Send + Sync + 'static {
    /// See [`Backend::kind`].
    fn kind(&self) -> &'static str;

    /// See [`Backend::capabilities`].
    fn capabilities(&self) -> Capabilities;

    /// See [`Backend::try_acquire`].
    fn try_acquire(
        &self,
        claim: &Claim,
    ) -> impl Future<Output = Result<Attempt, BackendError>> + Send;

    /// See [`Backend::try_acquire_set`].
    fn try_acquire_set(
        &self,
        claims: &[Claim],
    ) -> impl Future<Output = Result<SetAttempt, BackendError>> + Send {
        let _ = claims;
        let refused = no_sets(AsyncBackend::kind(self));
        async { Err(refused) }
    }

    /// See [`Backend::try_acquire_many`]. By default one request per claim.
    fn try_acquire_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Attempt> {
        Answers::each(claims, |claim| Answer::from_future(AsyncBackend::try_acquire(self, claim)))
    }

    /// See [`Backend::acquire_queued`].
    fn acquire_queued(
        &self,
        claim: &Claim,
    ) -> impl Future<Output = Result<Attempt, BackendError>> + Send {
        AsyncBackend::try_acquire(self, claim)
    }

    /// See [`Backend::renew`].
    fn renew(&self, claim: &Claim) -> impl Future<Output = Result<Renewal, BackendError>> + Send;

    /// See [`Backend::renew_many`]. By default one request per claim.
    fn renew_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Renewal> {
        Answers::each(claims, |claim| Answer::from_future(AsyncBackend::renew(self, claim)))
    }

    /// See [`Backend::release`].
    fn release(
        &self,
        claim: &Claim,
        release: Release,
    ) -> impl Future<Output = Result<Released, BackendError>> + Send;

    /// See [`Backend::release_many`]. By default one request per claim.
    fn release_many<'a>(&'a self, releases: &'a [(Claim, Release)]) -> Answers<'a, Released> {
        Answers::each(releases, |(claim, release)| {
            Answer::from_future(AsyncBackend::release(self, claim, *release))
        })
    }

    /// See [`Backend::watch`].
    fn watch(
        &self,
        key: &LockKey,
    ) -> impl Future<Output = Result<Box<dyn Watch>, BackendError>> + Send;

    /// See [`Backend::watch_for`].
    fn watch_for(
        &self,
        claim: &Claim,
    ) -> impl Future<Output = Result<Box<dyn Watch>, BackendError>> + Send {
        AsyncBackend::watch(self, &claim.key)
    }

    /// See [`Backend::inspect`].
    fn inspect(
        &self,
        key: &LockKey,
    ) -> impl Future<Output = Result<Option<Holder>, BackendError>> + Send;

    /// See [`Backend::list`].
    fn list(
        &self,
        prefix: &str,
    ) -> impl Future<Output = Result<Vec<LockState>, BackendError>> + Send;

    /// See [`Backend::revoke`].
    fn revoke(&self, key: &LockKey) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// See [`Backend::force_release`].
    fn force_release(
        &self,
        key: &LockKey,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send;
}

impl<B: AsyncBackend> Backend for B {
    fn kind(&self) -> &'static str {
        AsyncBackend::kind(self)
    }

    fn capabilities(&self) -> Capabilities {
        AsyncBackend::capabilities(self)
    }

    fn try_acquire<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        Answer::from_future(AsyncBackend::try_acquire(self, claim))
    }

    fn try_acquire_set<'a>(
        &'a self,
        claims: &'a [Claim],
    ) -> Answer<'a, Result<SetAttempt, BackendError>> {
        Answer::from_future(AsyncBackend::try_acquire_set(self, claims))
    }

    fn try_acquire_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Attempt> {
        AsyncBackend::try_acquire_many(self, claims)
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Renewal> {
        AsyncBackend::renew_many(self, claims)
    }

    fn release_many<'a>(&'a self, releases: &'a [(Claim, Release)]) -> Answers<'a, Released> {
        AsyncBackend::release_many(self, releases)
    }

    fn acquire_queued<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        Answer::from_future(AsyncBackend::acquire_queued(self, claim))
    }

    fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
        Answer::from_future(AsyncBackend::renew(self, claim))
    }

    fn release<'a>(
        &'a self,
        claim: &'a Claim,
        release: Release,
    ) -> Answer<'a, Result<Released, BackendError>> {
        Answer::from_future(AsyncBackend::release(self, claim, release))
    }

    fn watch<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
        Answer::from_future(AsyncBackend::watch(self, key))
    }

    fn watch_for<'a>(
        &'a self,
        claim: &'a Claim,
    ) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
        Answer::from_future(AsyncBackend::watch_for(self, claim))
    }

    fn inspect<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Option<Holder>, BackendError>> {
        Answer::from_future(AsyncBackend::inspect(self, key))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Result<Vec<LockState>, BackendError>> {
        Answer::from_future(AsyncBackend::list(self, prefix))
    }

    fn revoke<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        Answer::from_future(AsyncBackend::revoke(self, key))
    }

    fn force_release<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        Answer::from_future(AsyncBackend::force_release(self, key))
    }
}

/// The error of a backend that acquires one key at a time.
pub(super) fn no_sets(kind: &str) -> BackendError {
    BackendError::permanent(format!("{kind} acquires one key at a time")).not_sent()
}
