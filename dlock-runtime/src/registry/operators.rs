//! What operators do with locks: look who holds them, and end holds.

use super::Registry;
use crate::backend::{Backend, LockState};
use crate::error::LockError;
use crate::key::LockKey;

impl Registry {
    /// The locks of the default backend whose keys begin so and that are held or waited for: who
    /// ([host, process, what for, since when](crate::ClientInfo)), with which token, until when. In the order of
    /// their keys, [at most 10,000](crate::backend::MAX_LISTED).
    ///
    /// Each lock is as it was at some moment of the call. Of the waiters those are seen that stand in the
    /// store's own queue: all on ZooKeeper and etcd, elsewhere those that are fair, and writers behind readers.
    ///
    /// ```
    /// # use dlock_runtime::{Registry, backend::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let locks = Registry::builder().backend("memory", Memory::new()).build()?;
    /// let guard = locks.lock("product:1").label("stock-taking").acquire().await?;
    /// for lock in locks.inspect("product:").await? {
    ///     for holder in lock.holders {
    ///         let who = holder.client_info.map(|who| who.to_string()).unwrap_or_default();
    ///         println!("{} {} {who} {:?}", lock.key, holder.token, holder.expires_in);
    ///     }
    /// }
    /// # guard.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LockError::Backend`]; [`LockError::UnknownBackend`] if there is no default backend.
    ///
    /// # Cancel safety
    /// Cancel safe: it changes nothing.
    pub async fn inspect(&self, prefix: &str) -> Result<Vec<LockState>, LockError> {
        self.list(None, prefix).await
    }

    /// The same of the backend of this name.
    ///
    /// # Errors
    /// [`LockError::Backend`]; [`LockError::UnknownBackend`] if no backend has this name.
    ///
    /// # Cancel safety
    /// Cancel safe: it changes nothing.
    pub async fn inspect_in(
        &self,
        backend: &str,
        prefix: &str,
    ) -> Result<Vec<LockState>, LockError> {
        self.list(Some(backend), prefix).await
    }

    async fn list(&self, backend: Option<&str>, prefix: &str) -> Result<Vec<LockState>, LockError> {
        let registered = self.0.find(backend)?;
        let answer = registered.store.list(prefix).await;
        answer.map_err(|source| LockError::Backend { key: prefix.into(), source })
    }

    /// Ends the holds of a lock of the default backend without a danger to anybody: short for
    /// [`lock(key).revoke()`](crate::Lock::revoke).
    ///
    /// # Errors
    /// Those of [`Lock::revoke`](crate::Lock::revoke).
    ///
    /// # Cancel safety
    /// When the future is dropped the backend may or may not have executed it.
    pub async fn revoke(&self, key: impl Into<LockKey>) -> Result<bool, LockError> {
        self.lock(key).revoke().await
    }

    /// Frees a lock of the default backend at once, whoever holds it: only
    /// [fencing tokens](crate::FencingToken) protect then. Short for
    /// [`lock(key).force_release()`](crate::Lock::force_release).
    ///
    /// # Errors
    /// Those of [`Lock::force_release`](crate::Lock::force_release).
    ///
    /// # Cancel safety
    /// When the future is dropped the backend may or may not have executed it.
    pub async fn force_release(&self, key: impl Into<LockKey>) -> Result<bool, LockError> {
        self.lock(key).force_release().await
    }
}
