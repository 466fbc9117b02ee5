//! One connection for requests that is made again when it breaks.
//!
//! A connection counts as broken when a request on it fails below the protocol or is not answered in
//! time: a peer that vanished is noticed only so. What may be executed twice without harm is then
//! sent once more: the connection may have been dead long before, without anybody noticing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{
    ErrorKind, FromRedisValue, RedisError, RedisResult, ScriptInvocation, ServerErrorKind,
};

use super::topology::{Connection, Topology};
use crate::error::BackendError;

pub(super) struct Link {
    pub(super) topology: Topology,
    /// Hosts and ports: what error messages show. The URL may hold a password.
    address: String,
    limits: Limits,
    current: Mutex<Current>,
    /// Held while a new connection is made, so that many callers make one.
    connecting: tokio::sync::Mutex<()>,
}

/// How long the server may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connect: Duration,
    pub(super) response: Duration,
}

#[derive(Default)]
struct Current {
    /// Counts connections, so that a late failure of an old one does not discard its successor.
    generation: u64,
    connection: Option<Connection>,
}

/// Copies that a write must have before it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copies<'a> {
    /// What was written.
    pub(super) key: &'a str,
    pub(super) replicas: u32,
}

impl Link {
    pub(super) fn new(topology: Topology, address: String, limits: Limits) -> Self {
        Self {
            topology,
            address,
            limits,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Runs a script by its hash, loading it where the server does not know it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let (generation, mut connection) = self.connection().await?;
        let answer = script.invoke_async(&mut connection).await;
        answer.map_err(|error| self.failed(generation, error))
    }

    /// As [`run`](Self::run), and once more over a new connection when the old one turns out broken.
    pub(super) async fn run_repeatable<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let (generation, mut connection) = self.connection().await?;
        match script.invoke_async(&mut connection).await {
            Ok(answer) => Ok(answer),
            Err(error) if is_broken(&error) && !error.is_timeout() => {
                // The failure is noted, so that the next connection is a new one.
                let _ = self.failed(generation, error);
                self.run(script).await
            }
            Err(error) => Err(self.failed(generation, error)),
        }
    }

    /// As [`run_repeatable`](Self::run_repeatable), and an answer of `true` counts only when enough
    /// replicas have what was written.
    pub(super) async fn run_copied<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        copies: Copies<'_>,
        has_written: fn(&T) -> bool,
    ) -> Result<T, BackendError> {
        if copies.replicas == 0 {
            return self.run_repeatable(script).await;
        }
        let (generation, mut connection) = self.connection().await?;
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

    /// What a setting is, on every server that may have a key.
    pub(super) async fn setting(&self, name: &str) -> Result<Vec<String>, BackendError> {
        let (generation, mut connection) = self.connection().await?;
        let answer: RedisResult<_> = connection.setting(name).await;
        answer.map_err(|error| self.failed(generation, error))
    }

    async fn connection(&self) -> Result<(u64, Connection), BackendError> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let _alone = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let connection = self
            .topology
            .connect(self.limits)
            .await
            .map_err(|error| self.explain("could not be reached", error).not_sent())?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.generation += 1;
        current.connection = Some(connection.clone());
        Ok((current.generation, connection))
    }

    fn current(&self) -> Option<(u64, Connection)> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Some((current.generation, current.connection.clone()?))
    }

    fn failed(&self, generation: u64, error: RedisError) -> BackendError {
        if is_broken(&error) {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.generation == generation {
                current.connection = None;
            }
        }
        let what = if error.is_timeout() { "did not answer in time" } else { "failed" };
        self.explain(what, error)
    }

    pub(super) fn explain(&self, what: &str, error: RedisError) -> BackendError {
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
