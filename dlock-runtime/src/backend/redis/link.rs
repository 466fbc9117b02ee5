//! One multiplexed connection that is made again when it breaks.
//!
//! A connection counts as broken when a request on it fails below the protocol or is not answered in
//! time: a peer that vanished is noticed only so. What may be executed twice without harm is then
//! sent once more: the connection may have been dead long before, without anybody noticing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, RedisError, ScriptInvocation,
    ServerErrorKind,
};

use crate::error::BackendError;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    /// Host and port: what error messages show. The URL may hold a password.
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
    connection: Option<MultiplexedConnection>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(client: Client, limits: Limits) -> Self {
        let address = client.get_connection_info().addr().to_string();
        Self {
            client,
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

    /// Sends one plain command.
    pub(super) async fn send<T: FromRedisValue>(
        &self,
        command: &redis::Cmd,
    ) -> Result<T, BackendError> {
        let (generation, mut connection) = self.connection().await?;
        let answer = command.query_async(&mut connection).await;
        answer.map_err(|error| self.failed(generation, error))
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), BackendError> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let _alone = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.limits.connect))
            .set_response_timeout(Some(self.limits.response));
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| self.explain("could not be reached", error).not_sent())?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.generation += 1;
        current.connection = Some(connection.clone());
        Ok((current.generation, connection))
    }

    fn current(&self) -> Option<(u64, MultiplexedConnection)> {
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
