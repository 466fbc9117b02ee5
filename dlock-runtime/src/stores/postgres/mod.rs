//! Leases in a PostgreSQL table.
//!
//! | column of `dlock_leases` | what it holds |
//! |---|---|
//! | `lock_key` | the key; the row without one holds the largest token of rows that were deleted |
//! | `owner`, `token`, `expires_at` | who holds the lease, its fencing token, its end by the server's clock |
//! | `wanted`, `released` | does a process wait, and what the last release found |
//! | `gone`, `gone_before`, `gone_since` | owners whose acquire was given up |
//! | `lock_group`, `group_until` | who share the key and who wait for it in order, until when that means something |
//!
//! Each operation is one statement in one message, and a transaction of its own: it works behind a
//! proxy that pools by transaction, and a request that is dropped half-way leaves nothing open (its
//! connection is closed all the same). The table is made if it is missing; a role that may not do that
//! finds it in `src/stores/postgres/leases.sql` of this crate.
//!
//! A token is the server's time in microseconds, or one more than the last token if that is ahead. A
//! row is kept for a minute or more after its last use and then deleted; its token lives on in the row
//! without a key, so that no clock that was set back can make a later one smaller.
//!
//! Waiters are woken by `NOTIFY` over one connection per backend, sent only where somebody waits for
//! that key. Where no notice comes through (behind such a proxy) they look for themselves.
//!
//! # What it does not promise
//! A replica that is promoted before it has heard of a grant grants again: with asynchronous
//! replication only a fenced resource is safe across a failover (tokens grow as long as the servers'
//! clocks agree). The same holds for `synchronous_commit = off` and a crash.

pub(crate) mod dialect;
mod leases;
mod notices;
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

/// How to use a PostgreSQL server; made by [`Postgres::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before it connects"]
pub struct PostgresBuilder(LeaseOptions);

impl Postgres {
    /// Connects to `postgres://user:password@host:port/database`, making the table if it is missing.
    /// TLS and other options are those of sqlx's URLs (`?sslmode=require`; turn on one of sqlx's TLS
    /// features).
    ///
    /// # Errors
    /// A URL that cannot be read or has a parameter that nobody knows, a server that cannot be reached or refuses
    /// the credentials, a role that may neither find nor make the table, a table of another version. No error
    /// shows the password, or the value of a parameter.
    ///
    /// # Cancel safety
    /// Cancel safe: making the table is idempotent.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect(url).await
    }

    /// Uses connections of an existing pool, and some more that are opened as the pool's are (its options and hooks
    /// at the time included): one to listen, and up to four for renewals and releases, so that work that keeps the
    /// pool's connections loses no lock. No setting is left on any. Credentials that change are given to the pool,
    /// by its `set_connect_options`.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn with_pool(pool: PgPool) -> Result<Self, BackendError> {
        Self::builder().with_pool(pool).await
    }

    /// Options before connecting.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder(LeaseOptions::default())
    }

    /// Deletes the rows of keys that nobody has used for a minute. It takes two calls a minute or more
    /// apart: the first one remembers the rows' largest token, below which no later one comes out.
    ///
    /// A backend in use does it by itself, about once a minute.
    ///
    /// # Errors
    /// A server that fails.
    ///
    /// # Cancel safety
    /// Cancel safe: what was deleted is deleted.
    pub async fn delete_idle_rows(&self) -> Result<(), BackendError> {
        Statements::sweep(&self.leases).await
    }

    fn over(leases: Leases<Statements>) -> Self {
        let notices = Notices::new(Arc::clone(&leases.store));
        Self { leases: Arc::new(leases), notices: Arc::new(notices) }
    }
}

impl PostgresBuilder {
    /// The table that holds the leases, with or without its schema; `dlock_leases` if not set, found
    /// along the role's `search_path`. Services with different tables share a database without
    /// excluding each other.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.0.table(table.into());
        self
    }

    /// How long the server may take to answer a request, a wait for a connection of the pool
    /// included; 5 s if not set, 30 s at most. The server itself ends a statement after so long.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.0.response_timeout(limit);
        self
    }

    /// How many connections [`connect`](Self::connect) opens at most, besides the one that listens and
    /// up to four that are kept for renewals and releases; 10 if not set.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.0.max_connections(connections);
        self
    }

    /// Connects; see [`Postgres::connect`].
    ///
    /// # Errors
    /// Those of [`Postgres::connect`], and a table whose name is not one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect(self, url: &str) -> Result<Postgres, BackendError> {
        Ok(Postgres::over(Leases::connect(self.0, url).await?))
    }

    /// Uses a pool; see [`Postgres::with_pool`].
    ///
    /// # Errors
    /// Those of [`Postgres::with_pool`], and a table whose name is not one.
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

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        self.leases.inspect(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        self.leases.list(prefix).await
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
