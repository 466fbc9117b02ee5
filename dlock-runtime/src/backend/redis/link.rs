//! One connection for requests that is made again when it breaks.
//!
//! A connection counts as broken when a request on it fails below the protocol or is not answered in
//! time: a peer that vanished is noticed only so. What may be executed twice without harm is then
//! sent once more: the connection may have been dead long before, without anybody noticing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::{
    ErrorKind, FromRedisValue, RedisError, RedisResult, ScriptInvocation, ServerErrorKind,
};

use super::names::Names;
use super::topology::{Connection, Topology};
use crate::backend::MOST_LISTED;
use crate::error::BackendError;
use crate::key::LockKey;

pub(in crate::backend) struct Link {
    pub(in crate::backend) topology: Topology,
    /// Hosts and ports: what error messages show. The URL may hold a password.
    address: String,
    limits: Limits,
    current: Mutex<Current>,
}

/// How long the server may take.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend) struct Limits {
    pub(in crate::backend) connect: Duration,
    pub(in crate::backend) response: Duration,
}

#[derive(Default)]
struct Current {
    /// Counts connections, so that a late failure of an old one does not discard its successor.
    generation: u64,
    connection: Option<Connection>,
    /// Many callers share one new connection, and none of them ends it by going away.
    connecting: Option<Connecting>,
}

type Connecting = Shared<BoxFuture<'static, RedisResult<Session>>>;

/// One connection, as long as it lasts: to one run of a server, where there is one server.
#[derive(Clone)]
pub(in crate::backend) struct Session {
    pub(in crate::backend) generation: u64,
    connection: Connection,
}

/// Copies that a write must have before it counts.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend) struct Copies<'a> {
    /// What was written.
    pub(in crate::backend) key: &'a str,
    pub(in crate::backend) replicas: u32,
}

impl Link {
    pub(in crate::backend) fn new(topology: Topology, address: String, limits: Limits) -> Self {
        Self { topology, address, limits, current: Mutex::default() }
    }

    pub(in crate::backend) fn limits(&self) -> Limits {
        self.limits
    }

    pub(in crate::backend) fn address(&self) -> &str {
        &self.address
    }

    /// Runs a script by its hash, loading it where the server does not know it.
    pub(in crate::backend) async fn run<T: FromRedisValue>(
        self: &Arc<Self>,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let session = self.session().await?;
        self.run_in(session, script).await
    }

    /// As [`run`](Self::run), over this connection.
    pub(in crate::backend) async fn run_in<T: FromRedisValue>(
        &self,
        mut session: Session,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let answer = script.invoke_async(&mut session.connection).await;
        answer.map_err(|error| self.failed(session.generation, error))
    }

    /// As [`run`](Self::run), and once more over a new connection when the old one turns out broken.
    pub(in crate::backend) async fn run_repeatable<T: FromRedisValue>(
        self: &Arc<Self>,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let mut session = self.session().await?;
        match script.invoke_async(&mut session.connection).await {
            Ok(answer) => Ok(answer),
            Err(error) if is_broken(&error) && !error.is_timeout() => {
                // The failure is noted, so that the next connection is a new one.
                let _ = self.failed(session.generation, error);
                self.run(script).await
            }
            Err(error) => Err(self.failed(session.generation, error)),
        }
    }

    /// As [`run_repeatable`](Self::run_repeatable), and an answer of `true` counts only when enough
    /// replicas have what was written.
    pub(in crate::backend) async fn run_copied<T: FromRedisValue>(
        self: &Arc<Self>,
        script: &ScriptInvocation<'_>,
        copies: Copies<'_>,
        has_written: fn(&T) -> bool,
    ) -> Result<T, BackendError> {
        if copies.replicas == 0 {
            return self.run_repeatable(script).await;
        }
        let Session { generation, mut connection } = self.session().await?;
        let answer = script.invoke_async(&mut connection).await;
        let answer = answer.map_err(|error| self.failed(generation, error))?;
        if has_written(&answer) {
            // Half the time of an answer, so that its own answer comes in time. On the connection that
            // has written: it is the writes of that one which are waited for.
            let millis = u64::try_from(self.limits.response.as_millis() / 2).unwrap_or(u64::MAX);
            let have = connection.wait(copies.key, copies.replicas, millis).await;
            let have = have.map_err(|error| self.failed(generation, error))?;
            if have < copies.replicas {
                return Err(BackendError::transient(format!(
                    "redis at {}: {have} of {} replicas had the lock in time",
                    self.address, copies.replicas
                )));
            }
        }
        Ok(answer)
    }

    /// A server that evicts keys under memory pressure would evict held locks.
    pub(in crate::backend) async fn refuse_eviction(self: &Arc<Self>) -> Result<(), BackendError> {
        match self.setting("maxmemory-policy").await {
            Ok(policies) => match policies.iter().find(|policy| *policy != "noeviction") {
                Some(policy) => Err(BackendError::permanent(format!(
                    "the redis at {} evicts keys when its memory is full (maxmemory-policy {policy}), and with them held locks: set it to noeviction, or use another server for locks",
                    self.address
                ))),
                None => Ok(()),
            },
            Err(error) if error.is_transient() || !error.may_have_been_sent() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "redis does not tell its maxmemory-policy; make sure that it is noeviction");
                Ok(())
            }
        }
    }

    /// The keys of locks that begin so, in order, [`MOST_LISTED`] at most.
    pub(in crate::backend) async fn keys(
        self: &Arc<Self>,
        prefix: &str,
        key_prefix: &str,
    ) -> Result<BTreeSet<LockKey>, BackendError> {
        let mut session = self.session().await?;
        let pattern = Names::pattern(prefix, key_prefix);
        let mut keys = BTreeSet::new();
        let found = |name: &str| {
            keys.extend(Names::key(prefix, name));
            if keys.len() > MOST_LISTED {
                keys.pop_last();
            }
        };
        let scanned = session.connection.scan(&pattern, found).await;
        scanned.map_err(|error| self.failed(session.generation, error))?;
        Ok(keys)
    }

    /// What a setting is, on every server that may have a key.
    async fn setting(self: &Arc<Self>, name: &str) -> Result<Vec<String>, BackendError> {
        let mut session = self.session().await?;
        let answer = session.connection.setting(name).await;
        answer.map_err(|error| self.failed(session.generation, error))
    }

    /// The connection there is, or a new one.
    ///
    /// Cancel safe: a connection under way is completed for the next caller.
    pub(in crate::backend) async fn session(self: &Arc<Self>) -> Result<Session, BackendError> {
        let connecting = {
            let mut current = self.current();
            if let Some(connection) = &current.connection {
                let connection = connection.clone();
                return Ok(Session { generation: current.generation, connection });
            }
            current.connecting.get_or_insert_with(|| self.connect()).clone()
        };
        let made = connecting.clone().await;
        made.map_err(|error| {
            // It may have ended with its runtime, without a word.
            let mut current = self.current();
            current.connecting.take_if(|other| other.ptr_eq(&connecting));
            self.explain("could not be reached", error).not_sent()
        })
    }

    fn connect(self: &Arc<Self>) -> Connecting {
        let link = Arc::clone(self);
        let task = tokio::spawn(async move {
            let made = link.topology.connect(link.limits).await;
            link.connected(made)
        });
        async move { task.await.unwrap_or_else(|_| Err(super::topology::late())) }.boxed().shared()
    }

    fn connected(&self, made: RedisResult<Connection>) -> RedisResult<Session> {
        let mut current = self.current();
        current.connecting = None;
        let connection = made?;
        current.generation += 1;
        current.connection = Some(connection.clone());
        Ok(Session { generation: current.generation, connection })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does without this connection from now on.
    pub(in crate::backend) fn discard(&self, generation: u64) {
        let mut current = self.current();
        if current.generation == generation {
            current.connection = None;
        }
    }

    fn failed(&self, generation: u64, error: RedisError) -> BackendError {
        if is_broken(&error) {
            self.discard(generation);
        }
        let what = if error.is_timeout() { "did not answer in time" } else { "failed" };
        self.explain(what, error)
    }

    pub(in crate::backend) fn explain(&self, what: &str, error: RedisError) -> BackendError {
        let message = format!("redis at {} {what}: {error}", self.address);
        let explained = if is_transient(&error) {
            BackendError::transient(message)
        } else {
            BackendError::permanent(message)
        };
        explained.with_source(error)
    }
}

/// Can this connection no longer be trusted to carry requests to a master?
fn is_broken(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

fn is_transient(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io => true,
        // A script that cannot read what another version has written: it passes with that one's holds.
        ErrorKind::Server(ServerErrorKind::ResponseError) => {
            error.detail().is_some_and(|told| told.contains("another version of dlock"))
        }
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::NoScript
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
        ),
        ErrorKind::Extension => {
            matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY"))
        }
        _ => error.is_timeout() || error.is_connection_dropped(),
    }
}
