//! Locks for code without async: the same calls, which block their thread.

use std::fmt;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::error::LockError;
use crate::guard::LockGuard;
use crate::key::LockKey;
use crate::lock::Lock;
use crate::registry::{Registry, ShutdownTimedOut};
use crate::token::FencingToken;

/// A registry for threads that do not run async code.
///
/// It has a runtime of its own on one thread, which talks to the store and renews leases. Clones share it. The thread
/// ends with the last clone and the last guard. Call [`shutdown`](Self::shutdown) first, so that no release is left
/// undone.
///
/// ```
/// use dlock_runtime::{Registry, backend::Memory, blocking::Blocking};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let locks = Blocking::start(async {
///     Ok::<_, std::io::Error>(Registry::builder().backend("memory", Memory::new()).build().expect("one backend"))
/// })?;
/// let guard = locks.acquire(locks.lock("report"))?;
/// println!("held with token {}", guard.fencing_token());
/// guard.release()?;
///
/// let pages = locks.run(locks.lock("report"), |_| 12)?;
/// # assert_eq!(pages, 12);
/// locks.shutdown(std::time::Duration::from_secs(5))?;
/// # Ok(())
/// # }
/// ```
///
/// Do not call it from async code: it would block a thread of that code's runtime.
#[derive(Clone)]
pub struct Blocking {
    registry: Registry,
    worker: Arc<Worker>,
}

impl Blocking {
    /// Starts the thread, and runs there what makes the registry: connect the backends in it.
    ///
    /// # Errors
    /// That of the future; or an [`io::Error`] if the thread cannot be started.
    pub fn start<E>(
        connect: impl Future<Output = Result<Registry, E>> + Send + 'static,
    ) -> Result<Self, E>
    where
        E: From<io::Error> + Send + 'static,
    {
        let worker = Worker::start()?;
        let connected = worker.wait_for(connect);
        let registry = connected.unwrap_or_else(|| Err(io::Error::other(STOPPED).into()))?;
        Ok(Self { registry, worker: Arc::new(worker) })
    }

    /// Returns the registry, for its other methods. It must not be used after the last clone of this value is gone, because its
    /// backends live on the thread.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns a lock for this key, not yet acquired; see [`Lock`] for its options.
    pub fn lock(&self, key: impl Into<LockKey>) -> Lock {
        self.registry.lock(key)
    }

    /// Acquires a lock, and blocks until it has it or the wait is over.
    ///
    /// # Errors
    /// Those of [`Lock::acquire`].
    pub fn acquire(&self, lock: Lock) -> Result<BlockingGuard, LockError> {
        let guard = self.worker.wait_for(lock.acquire()).unwrap_or(Err(LockError::NoRuntime))?;
        Ok(BlockingGuard { guard: Some(guard), worker: Arc::clone(&self.worker) })
    }

    /// Acquires a lock, runs the body on this thread and releases the lock.
    ///
    /// A body that loses its lock cannot be stopped. Let it call [`check`](BlockingGuard::check) before each step, and
    /// pass the [token](BlockingGuard::fencing_token) with what it writes. If the body panics, the lock is released in
    /// the background.
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire), before the body has begun. Those of [`release`](BlockingGuard::release) after
    /// it has ended: then the result of the body is dropped.
    pub fn run<T>(
        &self,
        lock: Lock,
        body: impl FnOnce(&BlockingGuard) -> T,
    ) -> Result<T, LockError> {
        let guard = self.acquire(lock)?;
        let value = body(&guard);
        guard.release()?;
        Ok(value)
    }

    /// Refuses new locks, and blocks until all held locks are released; see [`Registry::shutdown`].
    ///
    /// # Errors
    /// [`ShutdownTimedOut`] if a lock was still held or being released at the limit.
    pub fn shutdown(&self, limit: Duration) -> Result<(), ShutdownTimedOut> {
        let registry = self.registry.clone();
        // Without its runtime, nothing is left to wait for.
        self.worker.wait_for(async move { registry.shutdown(limit).await }).unwrap_or(Ok(()))
    }
}

impl Registry {
    /// Returns this registry for threads that do not run async code.
    ///
    /// The runtime in which the backends were connected must live on. A program without async code makes its registry with
    /// [`Blocking::start`].
    ///
    /// # Errors
    /// An [`io::Error`] if a thread cannot be started.
    pub fn blocking(&self) -> io::Result<Blocking> {
        Ok(Blocking { registry: self.clone(), worker: Arc::new(Worker::start()?) })
    }
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Blocking").field(&self.registry).finish()
    }
}

/// A lock that a thread holds. Dropping it releases the lock in the background.
#[must_use = "a lock is released when its guard is dropped"]
pub struct BlockingGuard {
    /// `None` once it has been released.
    guard: Option<LockGuard>,
    worker: Arc<Worker>,
}

impl BlockingGuard {
    fn guard(&self) -> &LockGuard {
        self.guard.as_ref().expect("a guard that is released is gone")
    }

    /// Returns the key that is held.
    #[must_use]
    pub fn key(&self) -> &LockKey {
        self.guard().key()
    }

    /// Returns the token of this hold.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        self.guard().fencing_token()
    }

    /// Returns how much longer the lease is provably valid; see [`LockGuard::remaining`].
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.guard().remaining()
    }

    /// Checks that this process can prove that the lock is held right now.
    ///
    /// # Errors
    /// [`LockError::Lost`], [`LockError::HeldTooLong`] or [`LockError::ShutDown`] if it is not.
    pub fn check(&self) -> Result<(), LockError> {
        let guard = self.guard();
        guard.check().map_err(|ending| guard.hold().error(ending, false))
    }

    /// Allows the lock to be held for at least this long from now; see [`LockGuard::extend`].
    ///
    /// # Errors
    /// Those of [`LockGuard::extend`].
    pub fn extend(&self, least: Duration) -> Result<(), LockError> {
        let view = self.guard().view();
        let extended = self.worker.wait_for(async move { view.extend(least).await });
        extended.unwrap_or(Err(LockError::NoRuntime))
    }

    /// Releases the lock, and blocks until the backend has confirmed it.
    ///
    /// # Errors
    /// Those of [`LockGuard::release`].
    pub fn release(mut self) -> Result<(), LockError> {
        let Some(guard) = self.guard.take() else { return Ok(()) };
        self.worker.wait_for(guard.release()).unwrap_or(Err(LockError::NoRuntime))
    }
}

impl fmt::Debug for BlockingGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockingGuard").field(&self.guard).finish()
    }
}

const STOPPED: &str = "the thread of the locks has stopped";

/// The thread with the runtime. It ends when this is dropped.
struct Worker {
    runtime: Handle,
    stop: CancellationToken,
}

impl Worker {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        thread::Builder::new()
            .name("dlock".to_owned())
            .spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(Self { runtime: handle, stop })
    }

    /// Runs the future on the worker's thread. `None` if that has stopped, or the future panicked.
    fn wait_for<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody waits any more only if the waiting thread has been torn down.
            let _ = sender.send(future.await);
        });
        receiver.recv().ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
