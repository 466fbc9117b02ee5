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

/// How long a [drain](Registry::drain) waits for the bodies under locks.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct DrainLimits {
    grace: Duration,
    stop: Option<Duration>,
}

impl DrainLimits {
    /// Gives bodies this long to end. Those that have not ended by then are stopped at their next await point.
    pub const fn new(grace: Duration) -> Self {
        Self { grace, stop: Some(Duration::from_secs(5)) }
    }

    /// Stops no body: those that have not ended in time keep running, and the drain reports it.
    pub const fn without_stopping(mut self) -> Self {
        self.stop = None;
        self
    }

    /// Sets how long to wait for stopped bodies and for the release of their locks; 5 s if not set.
    pub const fn release_within(mut self, limit: Duration) -> Self {
        self.stop = Some(limit);
        self
    }
}

impl Registry {
    /// Waits for a signal, then shuts the registry down step by step.
    ///
    /// 1. From the signal on, no new lock is acquired: calls fail with [`LockError::ShutDown`](crate::LockError::ShutDown),
    ///    and so do those that wait. Calls nested under a lock that the task holds still enter.
    /// 2. Bodies under locks have the grace of the limits to end.
    /// 3. Those that have not ended are stopped at their next await point, as with `max_hold`, and their calls fail with
    ///    `ShutDown`. A bare [`LockGuard`](crate::LockGuard) ends too; see [`LockGuard::lost`](crate::LockGuard::lost).
    ///
    /// Each lock is released right after its body has ended. Run it beside the server, with the same signal, and let the
    /// process end when both have finished:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use dlock_runtime::{DrainLimits, Registry, backend::Memory};
    /// # async fn serve(signal: impl Future<Output = ()>) {}
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = Registry::builder().backend("memory", Memory::new()).build()?;
    /// let stop = tokio_util::sync::CancellationToken::new();
    /// # stop.cancel();
    /// let server = serve(stop.cancelled());
    /// let limits = DrainLimits::new(Duration::from_secs(20));
    /// let (_, drained) = tokio::join!(server, locks.drain(stop.cancelled(), limits));
    /// drained?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ShutdownTimedOut`] if a lock was still held or being released at the end.
    ///
    /// # Cancel safety
    /// If the future is dropped after the signal, new locks stay refused. Call it again to continue.
    pub async fn drain(
        &self,
        signal: impl Future<Output = ()>,
        limits: DrainLimits,
    ) -> Result<(), ShutdownTimedOut> {
        signal.await;
        let drained = self.shutdown(limits.grace).await;
        let (Some(limit), true) = (limits.stop, drained.is_err()) else { return drained };
        for hold in self.0.watchdogs.holds() {
            hold.end_for_shutdown();
        }
        self.0.stop_bodies.cancel();
        self.shutdown(limit).await
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
