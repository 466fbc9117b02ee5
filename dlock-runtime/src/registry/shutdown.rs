//! The orderly end: no new locks, and nothing left behind.

use std::time::Duration;

use super::Registry;

impl Registry {
    /// Refuses new locks from now on (calls that wait for one fail with
    /// [`LockError::ShutDown`](crate::LockError::ShutDown)), and waits until every lock that is held has been given back
    /// and every release in the background is done, but no longer than `limit`.
    ///
    /// Call it before the process ends: a release that is still under way when the runtime stops is
    /// left to the lease's ttl.
    ///
    /// # Errors
    /// [`ShutdownTimedOut`] when something was still held or under way at the limit.
    ///
    /// # Cancel safety
    /// New locks stay refused; the waiting can be taken up again.
    pub async fn shutdown(&self, limit: Duration) -> Result<(), ShutdownTimedOut> {
        self.0.shut_down.cancel();
        self.0.background.close();
        let done = tokio::time::timeout(limit, self.0.background.wait()).await;
        done.map_err(|_| ShutdownTimedOut { left: self.0.background.len() })
    }
}

/// Locks were still held, or releases under way, when a shutdown's limit had passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{left} locks were still held or being released at the shutdown's limit; they end with their leases"
)]
#[non_exhaustive]
pub struct ShutdownTimedOut {
    /// How many.
    pub left: usize,
}
