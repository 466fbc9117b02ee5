//! Operations for operators: list locks and end holds.

use super::Registry;
use crate::backend::{Backend, LockState};
use crate::contention::Contention;
use crate::error::LockError;
use crate::inversion::Inversion;
use crate::key::LockKey;

impl Registry {
    /// Lists the locks of the default backend whose keys start with `prefix` and that are held or waited for.
    ///
    /// Each holder is shown with its [client info](crate::ClientInfo), its token and its expiry. The list is sorted
    /// by key and has [at most 10,000](crate::backend::MAX_LISTED) locks. It is not a snapshot: each lock is shown as
    /// it was at some moment during the call. It includes only waiters in the store's own queue: all waiters on
    /// ZooKeeper and etcd; elsewhere fair waiters, and writers behind readers.
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

    /// Lists the locks of the backend with this name; see [`inspect`](Self::inspect).
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
        let mut states =
            answer.map_err(|source| LockError::Backend { key: prefix.into(), source })?;
        for LockState { key, holders, .. } in &mut states {
            for holder in holders {
                self.0.show_own(registered.index, key, holder);
            }
        }
        Ok(states)
    }

    /// Returns who waited for whom in this process, and who waits now.
    ///
    /// Each wait is charged to the site that held the lock meanwhile, so the sum of all blame is the time that callers
    /// waited. If a holder of another process is waited for longer than a tenth of a second, the store is asked who it
    /// is, at most ten times a second for each backend; see
    /// [`asks_who_holds`](crate::RegistryBuilder::asks_who_holds).
    ///
    /// ```
    /// # use dlock_runtime::{Registry, backend::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let locks = Registry::builder().backend("memory", Memory::new()).build()?;
    /// let stock_taking = locks.lock("product:1").template("stock-taking").run(tokio::task::yield_now());
    /// let purchase = locks.lock("product:1").template("purchase").run(async {});
    /// let (first, second) = tokio::join!(stock_taking, purchase);
    /// # first?; second?;
    /// let contention = locks.contention();
    /// assert_eq!(contention.blame[0].waiter, "purchase");
    /// assert_eq!(contention.blame[0].holder.name(), "stock-taking");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn contention(&self) -> Contention {
        self.0.contention()
    }

    /// Returns the locks that were nested in different orders, which may make tasks wait for each other until a `wait`
    /// is over.
    ///
    /// Orders are compared by template, and locks of one template by their keys. Nested are calls under the attribute or
    /// [`run`](crate::Lock::run) inside a body of the same task; a bare guard is not seen. Each inversion is also logged
    /// once. In builds without debug assertions, the list is empty unless the feature `lockdep` is on.
    ///
    /// ```
    /// # use dlock_runtime::{Registry, backend::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let locks = Registry::builder().backend("memory", Memory::new()).build()?;
    /// let lock = |template| locks.lock(template).template(template);
    /// lock("account").run(async { lock("vault").run(async {}).await }).await??;
    /// assert!(locks.inversions().is_empty());
    /// lock("vault").run(async { lock("account").run(async {}).await }).await??;
    /// # if cfg!(debug_assertions) {
    /// assert_eq!(locks.inversions().len(), 1);
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn inversions(&self) -> Vec<Inversion> {
        #[cfg(any(debug_assertions, feature = "lockdep"))]
        return self.0.lock_order.inversions();
        #[cfg(not(any(debug_assertions, feature = "lockdep")))]
        Vec::new()
    }

    /// Ends the holds of a lock of the default backend safely: short for
    /// [`lock(key).revoke()`](crate::Lock::revoke).
    ///
    /// # Errors
    /// Those of [`Lock::revoke`](crate::Lock::revoke).
    ///
    /// # Cancel safety
    /// If the future is dropped, the backend may or may not have executed the request.
    pub async fn revoke(&self, key: impl Into<LockKey>) -> Result<bool, LockError> {
        self.lock(key).revoke().await
    }

    /// Frees a lock of the default backend at once, whoever holds it: short for
    /// [`lock(key).force_release()`](crate::Lock::force_release).
    ///
    /// Only [fencing tokens](crate::FencingToken) keep the old holder's writes out.
    ///
    /// # Errors
    /// Those of [`Lock::force_release`](crate::Lock::force_release).
    ///
    /// # Cancel safety
    /// If the future is dropped, the backend may or may not have executed the request.
    pub async fn force_release(&self, key: impl Into<LockKey>) -> Result<bool, LockError> {
        self.lock(key).force_release().await
    }
}
