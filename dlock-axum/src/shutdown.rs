//! The order in which a server and its locks end.

use std::future::ready;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use dlock_runtime::{DrainLimits, Registry, ShutdownTimedOut};
use futures_util::future::{MaybeDone, maybe_done};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// For what is stopped when there is no time left: to release its locks, and to answer its client.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// Why a server did not end in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The server failed. Its locks have been released, as at a signal.
    #[error("the server failed")]
    Server(#[source] io::Error),
    /// Locks were still held or being released when the time was up. They end with their leases.
    #[error("the locks did not end in time")]
    Locks(#[source] ShutdownTimedOut),
    /// All locks have been released, but connections were still open when the time was up. They end with the runtime.
    #[error("connections were still open when the time for the shutdown was up")]
    Connections,
}

/// How a server and the locks of its handlers end.
#[derive(Debug)]
pub(crate) struct Shutdown {
    pub(crate) registry: Registry,
    pub(crate) limits: DrainLimits,
    /// From the signal on.
    pub(crate) within: Duration,
}

impl Shutdown {
    /// Runs a server that ends gracefully when `stop` is cancelled.
    pub(crate) async fn run(
        self,
        server: impl Future<Output = io::Result<()>>,
        stop: CancellationToken,
        signal: impl Future<Output = ()>,
        second_signal: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        // A guard, because the server has a task that waits for the token, also if this future is dropped.
        let stop = stop.drop_guard();
        let mut server = pin!(maybe_done(server));
        tokio::select! {
            () = signal => {}
            () = &mut server => {}
        }
        drop(stop);
        let drained = tokio::select! {
            drained = self.in_order(server.as_mut()) => drained,
            () = sleep(self.within) => self.at_once(server.as_mut()).await,
            () = second_signal => self.at_once(server.as_mut()).await,
        };
        match (server.take_output(), drained) {
            (Some(Err(error)), _) => Err(ServeError::Server(error)),
            (_, Err(left)) => Err(ServeError::Locks(left)),
            (None, Ok(())) => Err(ServeError::Connections),
            (Some(Ok(())), Ok(())) => Ok(()),
        }
    }

    /// Bodies have their grace, and connections as long as they need.
    async fn in_order<F: Future>(
        &self,
        server: Pin<&mut MaybeDone<F>>,
    ) -> Result<(), ShutdownTimedOut> {
        let drain = self.registry.drain(ready(()), self.limits);
        tokio::join!(drain, server).0
    }

    /// Bodies are stopped, and connections have the last moments to send what the handlers answer.
    async fn at_once<F: Future>(
        &self,
        server: Pin<&mut MaybeDone<F>>,
    ) -> Result<(), ShutdownTimedOut> {
        let limits = DrainLimits::new(Duration::ZERO).release_within(LAST_MOMENTS);
        let drain = self.registry.drain(ready(()), limits);
        tokio::join!(drain, timeout(LAST_MOMENTS, server)).0
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use dlock_runtime::backend::Memory;

    use super::*;

    fn shutdown() -> Shutdown {
        let locks = Registry::builder().backend("memory", Memory::new());
        Shutdown {
            registry: locks.build().expect("one backend"),
            limits: DrainLimits::new(Duration::from_secs(10)),
            within: Duration::from_secs(20),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_is_reported_after_its_locks_have_ended() {
        let shutdown = shutdown();
        let locks = shutdown.registry.clone();
        let guard = locks.lock("product:7").acquire().await.expect("free");
        let stop = CancellationToken::new();
        let server = ready(Err(io::Error::other("no sockets left")));
        let ended = shutdown.run(server, stop.clone(), pending(), pending()).await;
        assert!(matches!(ended, Err(ServeError::Server(_))), "{ended:?}");
        assert!(stop.is_cancelled());
        assert!(!guard.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_it_stops_the_server() {
        let stop = CancellationToken::new();
        let running = shutdown().run(pending(), stop.clone(), pending(), pending());
        let _ = timeout(Duration::from_secs(1), running).await;
        assert!(stop.is_cancelled());
    }
}
