//! A server that shuts down together with its locks.

use std::convert::Infallible;
use std::fmt;
use std::future::{Pending, pending};
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use dlock_runtime::{DrainLimits, Registry};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::shutdown::{ServeError, Shutdown};

/// Serves a router until a signal, then shuts down the server and its locks together.
///
/// Listener and service are those of [`axum::serve()`]; the registry is the one that the handlers use.
///
/// ```no_run
/// # async fn run(app: axum::Router, locks: dlock_runtime::Registry) -> Result<(), Box<dyn std::error::Error>> {
/// use dlock_axum::shutdown_signal;
/// use tokio::net::TcpListener;
///
/// let listener = TcpListener::bind("127.0.0.1:3000").await?;
/// dlock_axum::serve(listener, app, &locks).until(shutdown_signal()).await?;
/// # Ok(())
/// # }
/// ```
///
/// # What happens at the signal
///
/// 1. No more connections are accepted, idle ones are closed, and the others are closed after their response. No new lock
///    is acquired: a request that asks for one, or waits for one, is answered with
///    [`ShutDown`](dlock_runtime::LockError::ShutDown), status 503. Calls nested under a lock that the request holds still
///    enter.
/// 2. Requests that hold a lock have the grace of the [limits](Serve::drain_limits), 20 s if not set. Each lock is
///    released when its body ends.
/// 3. Bodies that have not ended by then are stopped at their next await point. Their requests are answered with
///    `ShutDown`, too.
/// 4. When all locks have been released and all connections are closed, [`until`](Serve::until) returns.
/// 5. If something is still left [28 s](Serve::within) after the signal, such as a handler that hangs, a response that
///    streams for ever, or a client that has sent half a request, or at a [second signal](Serve::force_on), the rest is
///    not waited for: all bodies are stopped, and `until` returns when their locks have been released, a second later at
///    most.
///
/// Let the process end after that. The tokio runtime has to run until then, because locks are released in its tasks. What
/// is left ends when the runtime is dropped; a runtime that is dropped waits for `spawn_blocking`, so if a handler may
/// hang in there, end with [`std::process::exit`].
///
/// If the server itself fails, the locks are shut down in the same way, and then the failure is returned.
pub fn serve<L, M, S>(listener: L, make_service: M, registry: &Registry) -> Serve<L, M, S>
where
    L: Listener,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S>,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    Serve {
        server: axum::serve(listener, make_service),
        shutdown: Shutdown {
            registry: registry.clone(),
            limits: DrainLimits::new(Duration::from_secs(20)),
            // Kubernetes kills a process 30 s after the signal.
            within: Duration::from_secs(28),
        },
        second_signal: pending(),
    }
}

/// A server that has not been started; [`serve()`] creates it and describes how it ends.
#[must_use = "it does nothing until `until` is awaited"]
pub struct Serve<L, M, S, N = Pending<()>> {
    server: axum::serve::Serve<L, M, S>,
    shutdown: Shutdown,
    second_signal: N,
}

impl<L, M, S, N> Serve<L, M, S, N> {
    /// Sets how long bodies under locks may run on after the signal; `DrainLimits::new(20 s)` if not set.
    pub fn drain_limits(mut self, limits: DrainLimits) -> Self {
        self.shutdown.limits = limits;
        self
    }

    /// Sets how long the shutdown may take in all, from the signal on; 28 s if not set.
    ///
    /// Choose it longer than the drain limits, and a second or more shorter than the time after which the process is
    /// killed. After that time bodies are stopped even with [`DrainLimits::without_stopping`].
    pub fn within(mut self, limit: Duration) -> Self {
        self.shutdown.within = limit;
        self
    }

    /// Sets a second signal, which ends the graceful part of the shutdown. It is first polled after the first signal.
    ///
    /// Pass [`shutdown_signal()`](crate::shutdown_signal) to let a second Ctrl-C end the process quickly.
    pub fn force_on<F: Future<Output = ()>>(self, second_signal: F) -> Serve<L, M, S, F> {
        Serve { server: self.server, shutdown: self.shutdown, second_signal }
    }
}

impl<L, M, S, N> Serve<L, M, S, N>
where
    L: Listener<Addr: fmt::Debug>,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<IncomingStream<'a, L>>>::Future: Send,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    N: Future<Output = ()>,
{
    /// Runs the server until the signal, and then shuts it down.
    ///
    /// # Errors
    /// [`ServeError`] if something was left at the end, or if the server failed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the server ends as at a signal, but nothing waits for its requests or their locks. Call
    /// [`Registry::drain`] to do that for the locks.
    pub async fn until(self, signal: impl Future<Output = ()>) -> Result<(), ServeError> {
        let stop = CancellationToken::new();
        let server = self.server.with_graceful_shutdown(stop.clone().cancelled_owned());
        self.shutdown.run(server.into_future(), stop, signal, self.second_signal).await
    }
}

impl<L, M, S, N> fmt::Debug for Serve<L, M, S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("shutdown", &self.shutdown).finish_non_exhaustive()
    }
}
