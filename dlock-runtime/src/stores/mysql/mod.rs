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
pub(crate) mod row_lock;
mod statements;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlQueryResult, MySqlRow};
use sqlx::{ConnectOptions, Row};

use crate::backend::{
    Answer, AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Mode, Release, Released,
    Renewal, SetAttempt, Watch, validity_of,
};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{self, Change, LeaseRow, NewRow, Purpose, RowOwner, RowStore};
use crate::stores::shared::doubt::Doubt;
use crate::stores::shared::sql::store::failure;
use crate::stores::shared::sql::tables::Table;
use crate::stores::shared::sql::{self, Reply, poll};
use crate::stores::shared::sql_leases::{Lane, LeaseStore};
use crate::stores::shared::sweeper::Sweeping;
use crate::token::FencingToken;

type Store = LeaseStore<sqlx::MySql>;

/// Leases in a MySQL or MariaDB table.
///
/// Clones share their connections.
#[derive(Clone)]
pub struct MySql(Arc<Inner>);

struct Inner {
    store: Store,
    statements: Statements,
    sweeping: Sweeping,
}

/// How many rows one statement changes at most: MySQL joins 61 tables.
const MOST_JOINED: usize = 50;

/// All columns of the table.
const COLUMNS: &str = "lock_key, owner, token, expires_at, gone, gone_before, gone_since, lock_group, group_until, claimant";

/// The SQL for one table.
struct Statements {
    table: String,
}

/// How to use a MySQL or MariaDB server; made by [`MySql::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before it connects"]
pub struct MySqlBuilder {
    table: String,
    limit: Duration,
    connections: u32,
}

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
        MySqlBuilder {
            table: "dlock_leases".to_owned(),
            limit: sql::store::DEFAULT_LIMIT,
            connections: sql::store::DEFAULT_CONNECTIONS,
        }
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
        let store = &self.0.store;
        let reply = store.run(Lane::Acquires, &self.sql().floor_if_settled()).await?;
        let Some(row) = reply.row() else { return Ok(()) };
        let floor = read::<u64>(row, 0)?;
        loop {
            let reply = store.run(Lane::Acquires, &self.sql().idle_up_to(floor)).await?;
            let keys = reply.rows.iter().flatten().map(|row| read::<Vec<u8>>(row, 0));
            let keys = keys.map(|key| Ok(dialect::bytes(&key?)));
            let keys = keys.collect::<Result<Vec<_>, BackendError>>()?;
            if keys.is_empty() {
                break;
            }
            store.run(Lane::Acquires, &self.sql().delete_idle(&keys.join(","), floor)).await?;
        }
        let reply = store.run(Lane::Acquires, &self.sql().largest_idle(floor)).await?;
        if let Some(row) = reply.row() {
            store.run(Lane::Acquires, &self.sql().raise_floor(read(row, 0)?)).await?;
        }
        Ok(())
    }

    fn sql(&self) -> &Statements {
        &self.0.statements
    }

    async fn try_acquire_in(
        &self,
        rows: &Rows<'_>,
        claim: &Claim,
    ) -> Result<Attempt, BackendError> {
        if !claim.is_plain() {
            return row::acquire(rows, claim).await;
        }
        let reply = self.0.store.run_acquire(&rows.doubt, &self.sql().acquire(claim)).await?;
        if reply.last.as_ref().is_none_or(|result| result.rows_affected() == 0) {
            // Nothing was inserted or found: the row without a key is not there.
            return Err(BackendError::permanent(format!(
                "mysql: the row without a key is gone from `{}`; run `src/stores/mysql/leases.sql` of dlock-runtime again",
                self.sql().table
            )));
        }
        if let token @ 1.. = said(&reply) {
            return Ok(Attempt::granted(FencingToken::new(token), validity_of(claim.ttl)));
        }
        match Rows::of(self).look(claim, Purpose::Acquire).await? {
            Some(row) if row.has_group() => row::acquire(rows, claim).await,
            row => Ok(Attempt::busy(Some(row.map_or(Duration::ZERO, |row| row.left())))),
        }
    }

    fn sweep_if_due(&self) {
        self.0.sweeping.start_if_due(|| {
            let mysql = Arc::downgrade(&self.0);
            async move {
                let Some(inner) = mysql.upgrade() else { return Ok(()) };
                Self(Arc::clone(&inner)).delete_idle_rows().await?;
                // There may be no such table, if nobody locks rows.
                let _ = crate::transaction::delete_idle_rows(inner.store.pool()).await;
                Ok(())
            }
        });
    }
}

impl MySqlBuilder {
    /// The table that holds the leases, with or without its database; `dlock_leases` if not set.
    /// Services with different tables share a database without excluding each other.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        self
    }

    /// How long the server may take to answer a request, a wait for a connection of the pool
    /// included; 5 s if not set, 30 s at most. The server itself ends a statement after so long.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.limit = limit.min(sql::store::LONGEST_LIMIT);
        self
    }

    /// How many connections [`connect`](Self::connect) opens at most, besides up to four that are kept for
    /// renewals and releases; 10 if not set.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.connections = connections.max(1);
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
        let options = options(url)?;
        let address = format!("{}:{}", options.get_host(), options.get_port());
        let (connections, limit) = (self.connections, self.limit);
        let pool = sql::store::connect::<sqlx::MySql>(options, &address, connections, limit);
        let pool = pool.await?;
        self.over(pool, true).await
    }

    /// Uses a pool; see [`MySql::with_pool`].
    ///
    /// # Errors
    /// Those of [`MySql::with_pool`], and a table whose name is not one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn with_pool(self, pool: MySqlPool) -> Result<MySql, BackendError> {
        self.over(pool, false).await
    }

    async fn over(self, pool: MySqlPool, is_own: bool) -> Result<MySql, BackendError> {
        sql::tables::check_name("mysql", &self.table)?;
        let store = Store::new(pool, self.limit, is_own);
        let statements = Statements { table: self.table };
        let table = Table {
            name: &statements.table,
            file: "src/stores/mysql/leases.sql",
            statements: include_str!("leases.sql").replace("dlock_leases", &statements.table),
            probe: format!("SELECT {COLUMNS} FROM {} WHERE lock_key = ''", statements.table),
        };
        table.ensure(store.plain()).await?;
        sql::tables::refuse_later_version(&statements.table, store.plain()).await?;
        Ok(MySql(Arc::new(Inner { store, statements, sweeping: Sweeping::default() })))
    }
}

/// The rows, for one operation.
struct Rows<'a> {
    backend: &'a MySql,
    doubt: Doubt,
}

impl<'a> Rows<'a> {
    fn of(backend: &'a MySql) -> Self {
        Self { backend, doubt: Doubt::default() }
    }

    fn store(&self) -> &'a Store {
        &self.backend.0.store
    }
}

impl RowStore for Rows<'_> {
    async fn look(
        &self,
        claim: &Claim,
        purpose: Purpose,
    ) -> Result<Option<LeaseRow>, BackendError> {
        let look = self.backend.sql().look(claim);
        let reply = self.store().run_repeatable(purpose.into(), &look).await?;
        reply.row().map(looked_at).transpose()
    }

    async fn look_at_all(&self, claims: &[Claim]) -> Result<Vec<Option<LeaseRow>>, BackendError> {
        let looks: Vec<_> = claims.iter().map(|claim| self.backend.sql().look(claim)).collect();
        let reply = self.store().run_repeatable(Lane::Acquires, &looks.join("; ")).await?;
        reply.rows.iter().map(|rows| rows.first().map(looked_at).transpose()).collect()
    }

    async fn make(&self, key: &LockKey) -> Result<(), BackendError> {
        self.store().run_repeatable(Lane::Acquires, &self.backend.sql().make(key)).await.map(|_| ())
    }

    async fn exchange(
        &self,
        claim: &Claim,
        old: &LeaseRow,
        new: &NewRow,
        purpose: Purpose,
    ) -> Result<bool, BackendError> {
        let statement = self.backend.sql().exchange(claim, old, new, purpose);
        let reply = match purpose {
            Purpose::Acquire => self.store().run_acquire(&self.doubt, &statement).await?,
            Purpose::Renew => self.store().run_repeatable(purpose.into(), &statement).await?,
            Purpose::Release => self.store().run(purpose.into(), &statement).await?,
        };
        Ok(is_affected(&reply))
    }

    async fn exchange_all(&self, changes: &[Change<'_>]) -> Result<bool, BackendError> {
        let store = self.store();
        if changes.len() > MOST_JOINED {
            return store
                .run_in_one_message(&self.backend.sql().exchange_one_by_one(changes))
                .await;
        }
        let statement = self.backend.sql().exchange_all(changes);
        Ok(is_affected(&store.run_acquire(&self.doubt, &statement).await?))
    }
}

/// What sqlx understands in a URL.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslca",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "charset",
    "collation",
    "statement-cache-capacity",
    "socket",
    "timezone",
    "time-zone",
];

fn options(url: &str) -> Result<MySqlConnectOptions, BackendError> {
    sql::url::check_parameters("mysql", url, PARAMETERS)?;
    match MySqlConnectOptions::from_str(url) {
        Ok(options) => Ok(options.disable_statement_logging()),
        Err(error) => {
            let problem = format!(
                "not a mysql URL of the form mysql://user:password@host:port/database: {error}"
            );
            Err(BackendError::permanent(problem).not_sent())
        }
    }
}

/// What the statement said through its last insert id.
fn said(reply: &Reply<sqlx::MySql>) -> u64 {
    reply.last.as_ref().map_or(0, MySqlQueryResult::last_insert_id)
}

fn is_affected(reply: &Reply<sqlx::MySql>) -> bool {
    reply.last.as_ref().is_some_and(|result| result.rows_affected() > 0)
}

fn looked_at(row: &MySqlRow) -> Result<LeaseRow, BackendError> {
    let time =
        |column| Ok::<_, BackendError>(u64::try_from(read::<i64>(row, column)?).unwrap_or(0));
    Ok(LeaseRow {
        owner: RowOwner::read(read(row, 0)?),
        client_info: ClientInfo::parse(&read::<String>(row, 6)?),
        token: read(row, 1)?,
        expires: time(2)?,
        group: read(row, 3)?,
        group_until: time(4)?,
        now: time(5)?,
        given_up: read::<i64>(row, 7)? != 0,
    })
}

fn read<'r, T>(row: &'r MySqlRow, column: usize) -> Result<T, BackendError>
where
    T: sqlx::Decode<'r, sqlx::MySql> + sqlx::Type<sqlx::MySql>,
{
    row.try_get(column).map_err(failure::<sqlx::MySql>)
}

impl AsyncBackend for MySql {
    fn kind(&self) -> &'static str {
        "mysql"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::SHARED_STORE
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        self.sweep_if_due();
        let rows = Rows::of(self);
        let answer = self.try_acquire_in(&rows, claim).await;
        rows.doubt.mark(answer, Attempt::with_in_doubt)
    }

    async fn try_acquire_set(&self, claims: &[Claim]) -> Result<SetAttempt, BackendError> {
        self.sweep_if_due();
        let rows = Rows::of(self);
        let answer = row::acquire_set(&rows, claims).await;
        rows.doubt.mark(answer, SetAttempt::with_in_doubt)
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        if claim.mode != Mode::Exclusive {
            return row::renew(&Rows::of(self), claim).await;
        }
        let reply = self.0.store.run_repeatable(Lane::Holds, &self.sql().renew(claim)).await?;
        Ok(if is_affected(&reply) {
            Renewal::Renewed { validity: validity_of(claim.ttl) }
        } else {
            Renewal::NotHeld
        })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if claim.may_be_in_a_group() {
            if release.late_acquire {
                self.0.store.run(Lane::Holds, &self.sql().release_for_good(claim, release)).await?;
            }
            return row::release(&Rows::of(self), claim, release).await;
        }
        let released = if release.late_acquire {
            said(
                &self
                    .0
                    .store
                    .run(Lane::Holds, &self.sql().release_for_good(claim, release))
                    .await?,
            ) == 1
        } else {
            is_affected(
                &self
                    .0
                    .store
                    .run(Lane::Holds, &self.sql().release(claim, release.keep_for))
                    .await?,
            )
        };
        if released {
            return Ok(Released::Released);
        }
        // It is not there any more; or it was revoked.
        row::release(&Rows::of(self), claim, release).await
    }

    /// A release from here on is seen.
    async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        let claim = Claim::new(key.clone(), Duration::ZERO);
        let seen = row::holders(&Rows::of(self), &claim).await?;
        Ok(Box::new(RowWatch { mysql: self.clone(), claim, seen }))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let claim = Claim::new(key.clone(), Duration::ZERO);
        let row = Rows::of(self).look(&claim, Purpose::Acquire).await?;
        Ok(row.and_then(|row| row.holder()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let reply =
            self.0.store.run_repeatable(Lane::Acquires, &self.sql().list(&prefix.into())).await?;
        let states = reply.rows.iter().flatten().map(|row| {
            let key = String::from_utf8_lossy(&read::<Vec<u8>>(row, 8)?).into_owned();
            Ok(looked_at(row)?.state(key.into()))
        });
        let states = states.collect::<Result<Vec<_>, BackendError>>()?;
        Ok(states.into_iter().filter(|state| !state.is_idle()).collect())
    }

    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        row::revoke(&Rows::of(self), key).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        row::force_release(&Rows::of(self), key).await
    }
}

impl fmt::Debug for MySql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySql").field("table", &self.sql().table).finish_non_exhaustive()
    }
}

/// Looks whether one of the holders is gone.
struct RowWatch {
    mysql: MySql,
    claim: Claim,
    seen: Vec<u64>,
}

impl Watch for RowWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        let Self { mysql, claim, seen } = self;
        Answer::from_future(async {
            let rows = Rows::of(mysql);
            poll::until_one_less(seen, || row::holders(&rows, claim)).await;
        })
    }
}
