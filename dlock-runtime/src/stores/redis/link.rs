//! One connection for requests to one server, which is replaced when it breaks.
//!
//! A connection counts as broken when a request on it fails below the protocol or times out: there is no
//! other way to notice a peer that has vanished.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};

use super::failure::{Failed, is_broken};
use super::topology::Topology;
use crate::backoff::Backoff;
use crate::error::BackendError;

/// The pauses between connection attempts: the first and the longest. However many callers need the
/// connection, only one attempt is in progress at a time.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(250));

pub(in crate::stores) struct Link {
    topology: Topology,
    /// Host and port, for error messages. The URL may contain a password.
    address: String,
    limits: Limits,
    current: Mutex<Current>,
}

/// Timeouts.
#[derive(Clone, Copy, Debug)]
pub(in crate::stores) struct Limits {
    pub(in crate::stores) connect: Duration,
    pub(in crate::stores) response: Duration,
}

#[derive(Default)]
struct Current {
    /// Counts connections, so that a late failure of an old one does not discard its successor.
    generation: u64,
    connection: Option<MultiplexedConnection>,
    /// The connection attempt in progress. Callers share it, and a caller that is dropped does not cancel it.
    connecting: Option<Connecting>,
    /// The pauses between attempts, since the first one failed.
    pauses: Option<Backoff>,
}

type Connecting = Shared<BoxFuture<'static, RedisResult<Session>>>;

/// One connection, until it breaks. It therefore reaches only one run of a server.
#[derive(Clone)]
pub(in crate::stores) struct Session {
    pub(in crate::stores) generation: u64,
    pub(in crate::stores) connection: MultiplexedConnection,
}

impl Link {
    pub(in crate::stores) fn new(topology: Topology, address: String, limits: Limits) -> Self {
        Self { topology, address, limits, current: Mutex::default() }
    }

    pub(in crate::stores) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(in crate::stores) fn limits(&self) -> Limits {
        self.limits
    }

    pub(in crate::stores) fn address(&self) -> &str {
        &self.address
    }

    /// Asks a question over the current connection, or a new one.
    pub(in crate::stores) async fn ask<T, F>(
        self: &Arc<Self>,
        question: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Session { generation, connection } = self.session().await?;
        question(connection).await.map_err(|error| self.failed(generation, error).error)
    }

    /// Returns the current connection, or opens a new one.
    ///
    /// Cancel safe: a connection attempt in progress is completed for the next caller.
    pub(in crate::stores) async fn session(self: &Arc<Self>) -> Result<Session, BackendError> {
        let connecting = {
            let mut current = self.current();
            if let Some(connection) = &current.connection {
                let connection = connection.clone();
                return Ok(Session { generation: current.generation, connection });
            }
            let pause = current.pauses.as_mut().map(Backoff::pause);
            current.connecting.get_or_insert_with(|| self.connect(pause)).clone()
        };
        let outcome = connecting.clone().await;
        outcome.map_err(|error| {
            // If its runtime shut down, it could not clear this itself.
            let mut current = self.current();
            current.connecting.take_if(|other| other.ptr_eq(&connecting));
            drop(current);
            Failed::new(&self.address, "could not be reached", error).error.not_sent()
        })
    }

    /// Which connection is the current one. `None` if there is none.
    pub(in crate::stores) fn generation(&self) -> Option<u64> {
        let current = self.current();
        current.connection.as_ref().map(|_| current.generation)
    }

    fn connect(self: &Arc<Self>, pause: Option<Duration>) -> Connecting {
        let link = Arc::clone(self);
        let task = tokio::spawn(async move {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            let outcome = link.topology.connect(link.limits).await;
            link.connected(outcome)
        });
        async move { task.await.unwrap_or_else(|_| Err(super::topology::late())) }.boxed().shared()
    }

    fn connected(&self, outcome: RedisResult<MultiplexedConnection>) -> RedisResult<Session> {
        let mut current = self.current();
        current.connecting = None;
        match outcome {
            Ok(connection) => {
                current.pauses = None;
                current.generation += 1;
                current.connection = Some(connection.clone());
                Ok(Session { generation: current.generation, connection })
            }
            Err(error) => {
                current.pauses.get_or_insert(PAUSES);
                Err(error)
            }
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Converts a failure, and discards the connection if it is broken.
    pub(in crate::stores) fn failed(&self, generation: u64, error: RedisError) -> Failed {
        if is_broken(&error) {
            let mut current = self.current();
            if current.generation == generation {
                current.connection = None;
            }
        }
        let what = if error.is_timeout() { "did not answer in time" } else { "failed" };
        Failed::new(&self.address, what, error)
    }
}
