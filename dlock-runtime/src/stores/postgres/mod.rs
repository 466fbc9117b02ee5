//! Leases in a PostgreSQL table.
//!
//! | column of `dlock_leases` | what it holds |
//! |---|---|
//! | `lock_key` | the key; the row with an empty key holds the largest token of deleted rows |
//! | `owner`, `token`, `expires_at` | the holder of the lease, its fencing token, and its end by the server's clock |
//! | `wanted`, `released` | whether a release is announced to all, and what the last release found |
//! | `gone`, `gone_before`, `gone_since` | tombstones: owners whose acquire was abandoned |
//! | `lock_group`, `group_until` | those who share the key and those in its queue, and until when that is valid |
//!
//! Each operation is one statement in one message, and a transaction of its own. So it works behind a proxy that
//! pools by transaction, and a request that is dropped half-way leaves nothing open (its connection is closed all
//! the same). The backend creates the table if it is missing; for a role without that privilege, the table is in
//! `src/stores/postgres/leases.sql` of this crate.
//!
//! A token is the server's time in microseconds, or one more than the last token if that is ahead. A
//! row is kept for a minute or more after its last use and then deleted. The row without a key remembers its
//! token, so that tokens grow even if the clock is set back.
//!
//! Those that wait stand in line in the table `dlock_leases_line`, and a release hands the lock over to the first one; see
//! `stores/postgres/line.rs`. `NOTIFY` wakes waiters over one connection per backend. It is sent only if somebody waits for
//! that key. Where notifications do not arrive (behind such a proxy), waiters poll.
//!
//! # What it does not promise
//! A replica that is promoted before it has received a grant grants the lock again: with asynchronous replication,
//! only a fenced resource is safe across a failover (tokens grow as long as the servers' clocks agree). The same
//! holds for `synchronous_commit = off` and a crash.

pub(crate) mod dialect;
mod leases;
mod line;
mod notices;
mod plain;
mod recent_keys;
pub(crate) mod row_lock;
mod statements;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;

use self::notices::Notices;
use self::statements::Statements;
use self::watch::RowWatch;
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Release, Released, Renewal,
    SetAttempt, Watch,
};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::shared::sql_leases::LeaseDialect as _;
use crate::stores::shared::sql_leases::connections::LeaseStore;
use crate::stores::shared::sql_leases::leases::Leases;
use crate::stores::shared::sql_leases::options::LeaseOptions;

type Store = LeaseStore<sqlx::Postgres>;

/// Leases in a PostgreSQL table.
///
/// Clones share their connections.
#[derive(Clone)]
pub struct Postgres {
    leases: Arc<Leases<Statements>>,
    notices: Arc<Notices>,
}

/// Options for a PostgreSQL server, created by [`Postgres::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before it connects"]
pub struct PostgresBuilder(LeaseOptions);

impl Postgres {
    /// Connects to `postgres://user:password@host:port/database`, creating the table if it is missing.
    /// TLS and other options are those of sqlx's URLs (`?sslmode=require`; enable one of sqlx's TLS features).
    ///
    /// # Errors
    /// A URL that cannot be read or has an unknown parameter, a server that cannot be reached or refuses the
    /// credentials, a role that can neither find nor create the table, a table of another version. No error
    /// contains the password or the value of a parameter.
    ///
    /// # Cancel safety
    /// Cancel safe: creating the table is idempotent.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect(url).await
    }

    /// Uses an existing pool, and a few more connections, opened with the pool's options and hooks as they are at
    /// this time: one to listen, and up to four for renewals and releases, so that work that occupies the pool's
    /// connections loses no lock. No setting is left on a connection. To change credentials, pass them to the pool's
    /// `set_connect_options`.
    ///
    /// Of the pool's hooks, `after_connect` runs for each of these connections when it is opened. `before_acquire` and
    /// `after_release` do not run for them: they stay open between two requests and are never given back. For the pool's
    /// own connections they run as usual, once for each request.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn with_pool(pool: PgPool) -> Result<Self, BackendError> {
        Self::builder().with_pool(pool).await
    }

    /// Sets options before connecting.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder(LeaseOptions::default())
    }

    /// Deletes the rows of keys that have not been used for a minute. It takes two calls, a minute or more apart: the
    /// first one remembers the rows' largest token, so that later tokens exceed it.
    ///
    /// A backend in use does this by itself, about once a minute.
    ///
    /// # Errors
    /// A server error.
    ///
    /// # Cancel safety
    /// Cancel safe: rows that were deleted stay deleted.
    pub async fn delete_idle_rows(&self) -> Result<(), BackendError> {
        Statements::sweep(&self.leases).await
    }

    fn over(leases: Leases<Statements>) -> Self {
        let topics = Arc::clone(&leases.sql.topics);
        let own_channel = leases.sql.line.as_ref().map(|line| line.channel.clone());
        let notices = Notices::new(Arc::clone(&leases.store), topics, own_channel);
        Self { leases: Arc::new(leases), notices: Arc::new(notices) }
    }
}

impl PostgresBuilder {
    /// Sets the table that holds the leases, with or without its schema; `dlock_leases` on the role's `search_path`
    /// if not set. Services with different tables share a database without excluding each other.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.0.table(table.into());
        self
    }

    /// Limits how long the server may take to answer a request, including the wait for a connection of the pool;
    /// 5 s if not set, 30 s at most. The server itself ends a statement after that time.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.0.response_timeout(limit);
        self
    }

    /// Limits how many connections [`connect`](Self::connect) opens, besides the one that listens and up to four for
    /// renewals and releases; 10 if not set.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.0.max_connections(connections);
        self
    }

    /// Connects; see [`Postgres::connect`].
    ///
    /// # Errors
    /// Those of [`Postgres::connect`], and a table name that is not valid.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect(self, url: &str) -> Result<Postgres, BackendError> {
        Ok(Postgres::over(Leases::connect(self.0, url).await?))
    }

    /// Uses a pool; see [`Postgres::with_pool`].
    ///
    /// # Errors
    /// Those of [`Postgres::with_pool`], and a table name that is not valid.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn with_pool(self, pool: PgPool) -> Result<Postgres, BackendError> {
        Ok(Postgres::over(Leases::over(self.0, pool, false).await?))
    }
}

impl AsyncBackend for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::SHARED_STORE
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        self.leases.try_acquire(claim).await
    }

    async fn try_acquire_set(&self, claims: &[Claim]) -> Result<SetAttempt, BackendError> {
        self.leases.try_acquire_set(claims).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        self.leases.renew(claim).await
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        self.leases.release(claim, release).await
    }

    async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        Ok(Box::new(RowWatch::begin(self.clone(), key).await?))
    }

    async fn watch_for(&self, claim: &Claim) -> Result<Box<dyn Watch>, BackendError> {
        Ok(Box::new(RowWatch::begin_for(self.clone(), claim).await?))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        self.leases.inspect(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let states = self.leases.list(prefix).await?;
        self.leases.sql.with_those_in_line(&self.leases.store, prefix, states).await
    }

    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        self.leases.revoke(key).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        self.leases.force_release(key).await
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("table", &self.leases.table()).finish_non_exhaustive()
    }
}
