//! Leases in a MySQL or MariaDB table.
//!
//! | column of `dlock_leases` | what it holds |
//! |---|---|
//! | `lock_key` | the key; the row with an empty key holds the largest token of deleted rows |
//! | `owner`, `token`, `expires_at` | the holder of the lease, its fencing token, and its end by the server's clock (UTC) |
//! | `lock_group`, `group_until` | those who share the key and those in its queue, and until when that is valid |
//! | `gone`, `gone_before`, `gone_since` | tombstones: owners whose acquire was abandoned |
//!
//! Each operation is one statement in one message, and a transaction of its own. So it works behind a proxy, and a
//! request that is dropped half-way leaves nothing open (its connection is closed all the same: the server may
//! still execute the request). A statement that InnoDB undoes because of a deadlock is sent again. The backend
//! creates the table if it is missing; for a user without that privilege, the table is in
//! `src/stores/mysql/leases.sql` of this crate.
//!
//! A token is the server's time in microseconds, or one more than the last token if that is ahead. A
//! row is kept for a minute or more after its last use and then deleted. The row without a key remembers its
//! token, so that tokens grow even if the clock is set back.
//!
//! The server does not notify anybody of a release: a waiting process polls, at first every few milliseconds and
//! then about thirty times a second, however many of its tasks wait for that key.
//!
//! It is tested with MariaDB 10.11. The statements use only what MySQL 8.0 supports, too.
//!
//! # What it does not promise
//! A replica that is promoted before it has received a grant grants the lock again: with asynchronous or
//! semi-synchronous replication, only a fenced resource is safe across a failover (tokens grow as long as the
//! servers' clocks agree). Of several writable nodes (Galera, group replication with more than one primary), use
//! one for locks.

pub(crate) mod dialect;
pub(crate) mod idle_rows;
mod leases;
mod plain;
pub(crate) mod row_lock;
mod statements;
mod sweep;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::MySqlPool;

use self::statements::Statements;
use crate::backend::{
    Answer, AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Release, Released,
    Renewal, SetAttempt, Watch,
};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::shared::sql::poll;
use crate::stores::shared::sql_leases::LeaseDialect as _;
use crate::stores::shared::sql_leases::leases::Leases;
use crate::stores::shared::sql_leases::options::LeaseOptions;

/// Leases in a MySQL or MariaDB table.
///
/// Clones share their connections.
#[derive(Clone)]
pub struct MySql(Arc<Leases<Statements>>);

/// Options for a MySQL or MariaDB server, created by [`MySql::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before it connects"]
pub struct MySqlBuilder(LeaseOptions);

impl MySql {
    /// Connects to `mysql://user:password@host:port/database` (or `mariadb://…`), creating the table if it is
    /// missing. TLS and other options are those of sqlx's URLs (`?ssl-mode=REQUIRED`; enable one of sqlx's TLS
    /// features; MySQL's default authentication without TLS needs its feature `mysql-rsa`).
    ///
    /// # Errors
    /// A URL that cannot be read or has an unknown parameter, a server that cannot be reached or refuses the
    /// credentials, a user that can neither find nor create the table, a table of another version. No error
    /// contains the password or the value of a parameter.
    ///
    /// # Cancel safety
    /// Cancel safe: creating the table is idempotent.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect(url).await
    }

    /// Uses an existing pool, and up to four more connections for renewals and releases, opened with the pool's
    /// options and hooks as they are at this time, so that work that occupies the pool's connections loses no lock.
    /// No setting is left on a connection. To change credentials, pass them to the pool's `set_connect_options`.
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
    pub async fn with_pool(pool: MySqlPool) -> Result<Self, BackendError> {
        Self::builder().with_pool(pool).await
    }

    /// Sets options before connecting.
    pub fn builder() -> MySqlBuilder {
        MySqlBuilder(LeaseOptions::default())
    }

    /// Deletes the rows of keys that have not been used for some minutes. It takes two calls, a minute or more apart:
    /// the first one remembers the rows' largest token, so that later tokens exceed it. It does the same for the rows of
    /// [row locks](crate::transaction::delete_idle_rows) in the same database, if there are any.
    ///
    /// A backend in use does this by itself, about once a minute.
    ///
    /// # Errors
    /// A server error.
    ///
    /// # Cancel safety
    /// Cancel safe: rows that were deleted stay deleted.
    pub async fn delete_idle_rows(&self) -> Result<(), BackendError> {
        Statements::sweep(&self.0).await
    }
}

impl MySqlBuilder {
    /// Sets the table that holds the leases, with or without its database; `dlock_leases` if not set. Services with different tables share a database without excluding each other.
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

    /// Limits how many connections [`connect`](Self::connect) opens, besides up to four for renewals and releases;
    /// 10 if not set.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.0.max_connections(connections);
        self
    }

    /// Connects; see [`MySql::connect`].
    ///
    /// # Errors
    /// Those of [`MySql::connect`], and a table name that is not valid.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect(self, url: &str) -> Result<MySql, BackendError> {
        Ok(MySql(Arc::new(Leases::connect(self.0, url).await?)))
    }

    /// Uses a pool; see [`MySql::with_pool`].
    ///
    /// # Errors
    /// Those of [`MySql::with_pool`], and a table name that is not valid.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn with_pool(self, pool: MySqlPool) -> Result<MySql, BackendError> {
        Ok(MySql(Arc::new(Leases::over(self.0, pool, false).await?)))
    }
}

impl AsyncBackend for MySql {
    fn kind(&self) -> &'static str {
        "mysql"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::SHARED_STORE
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        self.0.try_acquire(claim).await
    }

    async fn try_acquire_set(&self, claims: &[Claim]) -> Result<SetAttempt, BackendError> {
        self.0.try_acquire_set(claims).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        self.0.renew(claim).await
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        self.0.release(claim, release).await
    }

    /// Sees every release from now on.
    async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        let seen = self.0.holders(key).await?;
        Ok(Box::new(RowWatch { mysql: self.clone(), key: key.clone(), seen }))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        self.0.inspect(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        self.0.list(prefix).await
    }

    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        self.0.revoke(key).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        self.0.force_release(key).await
    }
}

impl fmt::Debug for MySql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySql").field("table", &self.0.table()).finish_non_exhaustive()
    }
}

/// Polls whether one of the holders is gone.
struct RowWatch {
    mysql: MySql,
    key: LockKey,
    seen: Vec<u64>,
}

impl Watch for RowWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        let Self { mysql, key, seen } = self;
        Answer::from_future(async {
            poll::until_a_holder_leaves(seen, || mysql.0.holders(key)).await;
        })
    }
}
