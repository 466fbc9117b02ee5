//! Graceful shutdown: no new locks, and nothing left behind.

use std::time::Duration;

use super::Registry;
use crate::timer;

impl Registry {
    /// Refuses new locks, and waits until all held locks are released.
    ///
    /// Calls that wait for a lock fail with [`LockError::ShutDown`](crate::LockError::ShutDown). The shutdown waits for
    /// every hold, and for every release that is under way in the background, but no longer than `limit`. Call it before
    /// the process ends: if the runtime stops during a release, the lock stays held until its lease expires.
    ///
    /// # Errors
    /// [`ShutdownTimedOut`] if a lock was still held or being released at the limit.
    ///
    /// # Cancel safety
    /// New locks stay refused. Call it again to continue waiting.
    pub async fn shutdown(&self, limit: Duration) -> Result<(), ShutdownTimedOut> {
        self.0.shut_down();
        let done = timer::timeout(limit, self.0.idle()).await;
        done.map_err(|_| ShutdownTimedOut { left: self.0.unfinished() })
    }
}

/// Locks were still held or being released when the limit of a shutdown had passed.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{left} locks were still held or being released when the shutdown timed out; they end with their leases"
)]
#[non_exhaustive]
pub struct ShutdownTimedOut {
    /// The number of such locks.
    pub left: usize,
}

crate::debug_as_display::debug_as_display!(ShutdownTimedOut);
