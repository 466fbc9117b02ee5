//! Leases in a MySQL or MariaDB table.
//!
//! | column of `dlock_leases` | what it holds |
//! |---|---|
//! | `lock_key` | the key; the row without one holds the largest token of rows that were deleted |
//! | `owner`, `token`, `expires_at` | who holds the lease, its fencing token, its end by the server's clock (UTC) |
//! | `lock_group`, `group_until` | who share the key and who wait for it in order, until when that means something |
//! | `gone`, `gone_before`, `gone_since` | owners whose acquire was given up |
//!
//! Each operation is one statement in one message, and a transaction of its own: it works behind a
//! proxy, and a request that is dropped half-way leaves nothing open (its connection is closed all the
//! same: the server may still execute what it was sent). What InnoDB undoes for a deadlock is sent
//! again. The table is made if it is missing; a user that may not do that finds it in
//! `src/stores/mysql/leases.sql` of this crate.
//!
//! A token is the server's time in microseconds, or one more than the last token if that is ahead. A
//! row is kept for a minute or more after its last use and then deleted; its token lives on in the row
//! without a key, so that no clock that was set back can make a later one smaller.
//!
//! The server tells nobody of a release: a waiting process looks, at first every few milliseconds and
//! then about thirty times a second, however many of its tasks wait for that key.
//!
//! It is tested with MariaDB 10.11. The statements keep to what MySQL 8.0 knows as well.
//!
//! # What it does not promise
//! A replica that is promoted before it has heard of a grant grants again: with asynchronous or
//! semi-synchronous replication only a fenced resource is safe across a failover (tokens grow as long
//! as the servers' clocks agree). Several writable nodes (Galera, group replication with more than one
//! primary) must be reached through one of them.

pub(crate) mod dialect;
pub(crate) mod idle_rows;
mod leases;
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
use crate::stores::shared::sql_leases::leases::Leases;
use crate::stores::shared::sql_leases::options::LeaseOptions;

/// Leases in a MySQL or MariaDB table.
///
/// Clones share their connections.
#[derive(Clone)]
pub struct MySql(Arc<Leases<Statements>>);

/// How to use a MySQL or MariaDB server; made by [`MySql::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before it connects"]
pub struct MySqlBuilder(LeaseOptions);

impl MySql {
    /// Connects to `mysql://user:password@host:port/database` (or `mariadb://…`), making the table if
    /// it is missing. TLS and other options are those of sqlx's URLs (`?ssl-mode=REQUIRED`; turn on
    /// one of sqlx's TLS features; MySQL's default authentication without TLS needs its feature
    /// `mysql-rsa`).
    ///
    /// # Errors
    /// A URL that cannot be read or has a parameter that nobody knows, a server that cannot be reached or refuses
    /// the credentials, a user that may neither find nor make the table, a table of another version. No error
    /// shows the password, or the value of a parameter.
    ///
    /// # Cancel safety
    /// Cancel safe: making the table is idempotent.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect(url).await
    }

    /// Uses connections of an existing pool, and up to four more that are opened as the pool's are (its options and
    /// hooks at the time included) for renewals and releases, so that work that keeps the pool's connections loses
    /// no lock. No setting is left on any. Credentials that change are given to the pool, by its
    /// `set_connect_options`.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn with_pool(pool: MySqlPool) -> Result<Self, BackendError> {
        Self::builder().with_pool(pool).await
    }

    /// Options before connecting.
    pub fn builder() -> MySqlBuilder {
        MySqlBuilder(LeaseOptions::default())
    }

    /// Deletes the rows of keys that nobody has used for some minutes. It takes two calls a minute or
    /// more apart: the first one remembers the rows' largest token, below which no later one comes
    /// out.
    ///
    /// A backend in use does it by itself, about once a minute; for the rows of
    /// [row locks](crate::transaction::delete_idle_rows) in the same database as well.
    ///
    /// # Errors
    /// A server that fails.
    ///
    /// # Cancel safety
    /// Cancel safe: what was deleted is deleted.
    pub async fn delete_idle_rows(&self) -> Result<(), BackendError> {
        sweep::delete_idle_rows(&self.0).await
    }
}

impl MySqlBuilder {
    /// The table that holds the leases, with or without its database; `dlock_leases` if not set.
    /// Services with different tables share a database without excluding each other.
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

    /// How many connections [`connect`](Self::connect) opens at most, besides up to four that are kept for
    /// renewals and releases; 10 if not set.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.0.max_connections(connections);
        self
    }

    /// Connects; see [`MySql::connect`].
    ///
    /// # Errors
    /// Those of [`MySql::connect`], and a table whose name is not one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect(self, url: &str) -> Result<MySql, BackendError> {
        Ok(MySql(Arc::new(Leases::connect(self.0, url).await?)))
    }

    /// Uses a pool; see [`MySql::with_pool`].
    ///
    /// # Errors
    /// Those of [`MySql::with_pool`], and a table whose name is not one.
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

    /// A release from here on is seen.
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

/// Looks whether one of the holders is gone.
struct RowWatch {
    mysql: MySql,
    key: LockKey,
    seen: Vec<u64>,
}

impl Watch for RowWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        let Self { mysql, key, seen } = self;
        Answer::from_future(async { poll::until_one_less(seen, || mysql.0.holders(key)).await })
    }
}
