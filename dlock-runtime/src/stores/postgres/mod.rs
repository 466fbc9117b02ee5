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
mod notices;
pub(crate) mod row_lock;
mod statements;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgRow};
use sqlx::{ConnectOptions, Row};

use self::notices::Notices;
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
use crate::stores::shared::sql::{self, poll};
use crate::stores::shared::sql_leases::{Lane, LeaseStore};
use crate::stores::shared::sweeper::Sweeping;
use crate::stores::shared::wakeups::Interest;
use crate::token::FencingToken;

type Store = LeaseStore<sqlx::Postgres>;

/// How long a waiter lets the listening connection come up before it looks for itself.
const LISTENING: Duration = Duration::from_millis(300);

/// Leases in a PostgreSQL table.
///
/// Clones share their connections.
#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    statements: Statements,
    notices: Notices,
    sweeping: Sweeping,
}

/// All columns of the table.
const COLUMNS: &str = "lock_key, owner, token, expires_at, wanted, released, gone, gone_before, gone_since, \
    lock_group, group_until, claimant";

/// The SQL for one table.
struct Statements {
    table: String,
}

/// How to use a PostgreSQL server; made by [`Postgres::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before it connects"]
pub struct PostgresBuilder {
    table: String,
    limit: Duration,
    connections: u32,
}

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
        PostgresBuilder {
            table: "dlock_leases".to_owned(),
            limit: sql::store::DEFAULT_LIMIT,
            connections: sql::store::DEFAULT_CONNECTIONS,
        }
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
        self.0.store.run(Lane::Acquires, &self.sql().sweep()).await.map(|_| ())
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
        let Some(row) = reply.row() else { return Ok(Attempt::busy(None)) };
        if let Some(token) = read::<Option<i64>>(row, 0)? {
            let token = FencingToken::new(token.unsigned_abs());
            return Ok(Attempt::granted(token, validity_of(claim.ttl)));
        }
        if read(row, 2)? {
            return row::acquire(rows, claim).await;
        }
        Ok(Attempt::busy(Some(micros(read(row, 1)?))))
    }

    /// Has the key's release announced; false if nobody holds it.
    async fn want(&self, key: &LockKey) -> Result<bool, BackendError> {
        let reply = self.0.store.run_repeatable(Lane::Acquires, &self.sql().want(key)).await?;
        Ok(reply.row().is_some())
    }

    fn sweep_if_due(&self) {
        self.0.sweeping.start_if_due(|| {
            let postgres = Arc::downgrade(&self.0);
            async move {
                match postgres.upgrade() {
                    Some(inner) => Self(inner).delete_idle_rows().await,
                    None => Ok(()),
                }
            }
        });
    }
}

impl PostgresBuilder {
    /// The table that holds the leases, with or without its schema; `dlock_leases` if not set, found
    /// along the role's `search_path`. Services with different tables share a database without
    /// excluding each other.
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

    /// How many connections [`connect`](Self::connect) opens at most, besides the one that listens and
    /// up to four that are kept for renewals and releases; 10 if not set.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.connections = connections.max(1);
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
        let options = options(url)?;
        let address = format!("{}:{}", options.get_host(), options.get_port());
        let (connections, limit) = (self.connections, self.limit);
        let pool = sql::store::connect::<sqlx::Postgres>(options, &address, connections, limit);
        let pool = pool.await?;
        self.over(pool, true).await
    }

    /// Uses a pool; see [`Postgres::with_pool`].
    ///
    /// # Errors
    /// Those of [`Postgres::with_pool`], and a table whose name is not one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn with_pool(self, pool: PgPool) -> Result<Postgres, BackendError> {
        self.over(pool, false).await
    }

    async fn over(self, pool: PgPool, is_own: bool) -> Result<Postgres, BackendError> {
        sql::tables::check_name("postgres", &self.table)?;
        let store = Arc::new(Store::new(pool, self.limit, is_own));
        let statements = Statements { table: self.table };
        statements.ensure_table(&store).await?;
        let notices = Notices::new(Arc::clone(&store));
        let sweeping = Sweeping::default();
        Ok(Postgres(Arc::new(Inner { store, statements, notices, sweeping })))
    }
}

impl Statements {
    async fn ensure_table(&self, store: &Store) -> Result<(), BackendError> {
        let table = Table {
            name: &self.table,
            file: "src/stores/postgres/leases.sql",
            statements: include_str!("leases.sql").replace("dlock_leases", &self.table),
            probe: format!("SELECT {COLUMNS} FROM {} WHERE lock_key = ''", self.table),
        };
        table.ensure(store.plain()).await?;
        sql::tables::refuse_later_version(&self.table, store.plain()).await
    }
}

/// The rows, for one operation.
struct Rows<'a> {
    backend: &'a Postgres,
    doubt: Doubt,
}

impl<'a> Rows<'a> {
    fn of(backend: &'a Postgres) -> Self {
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
        Ok(reply.row().is_some())
    }

    async fn exchange_all(&self, changes: &[Change<'_>]) -> Result<bool, BackendError> {
        let statement = self.backend.sql().exchange_all(changes);
        let reply = self.store().run_acquire(&self.doubt, &statement).await?;
        Ok(reply.row().is_some())
    }
}

/// What sqlx understands in a URL.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "options[…]",
];

fn options(url: &str) -> Result<PgConnectOptions, BackendError> {
    sql::url::check_parameters("postgres", url, PARAMETERS)?;
    match PgConnectOptions::from_str(url) {
        Ok(options) => Ok(options.disable_statement_logging()),
        Err(error) => {
            let problem = format!(
                "not a postgres URL of the form postgres://user:password@host:port/database: {error}"
            );
            Err(BackendError::permanent(problem).not_sent())
        }
    }
}

fn looked_at(row: &PgRow) -> Result<LeaseRow, BackendError> {
    let number =
        |column| Ok::<u64, BackendError>(u64::try_from(read::<i64>(row, column)?).unwrap_or(0));
    Ok(LeaseRow {
        owner: RowOwner::read(read(row, 0)?),
        client_info: ClientInfo::parse(read(row, 6)?),
        token: number(1)?,
        expires: number(2)?,
        group: read(row, 3)?,
        group_until: number(4)?,
        now: number(5)?,
        given_up: read(row, 7)?,
    })
}

fn read<'r, T>(row: &'r PgRow, column: usize) -> Result<T, BackendError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(failure::<sqlx::Postgres>)
}

/// Whole microseconds as the server counts them; none are left below zero.
fn micros(left: i64) -> Duration {
    Duration::from_micros(u64::try_from(left).unwrap_or(0))
}

impl AsyncBackend for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
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
        Ok(match reply.row() {
            Some(_) => Renewal::Renewed { validity: validity_of(claim.ttl) },
            None => Renewal::NotHeld,
        })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if claim.may_be_in_a_group() {
            if release.late_acquire {
                self.0.store.run(Lane::Holds, &self.sql().release(claim, release)).await?;
            }
            return row::release(&Rows::of(self), claim, release).await;
        }
        let reply = self.0.store.run(Lane::Holds, &self.sql().release(claim, release)).await?;
        match reply.row() {
            Some(_) => Ok(Released::Released),
            // It is not there any more; or it was revoked.
            None => row::release(&Rows::of(self), claim, release).await,
        }
    }

    async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        let interest = self.0.notices.of(dialect::stored(key));
        let (postgres, key) = (self.clone(), key.clone());
        let mut watch = RowWatch { postgres, key, interest, announced: false, seen: vec![] };
        watch.begin().await?;
        Ok(Box::new(watch))
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
            let key = dialect::read_key(&read::<String>(row, 8)?);
            Ok(looked_at(row)?.state(key))
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

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("table", &self.sql().table).finish_non_exhaustive()
    }
}

/// Waits for a notice of the key; looks for itself while none can come.
struct RowWatch {
    postgres: Postgres,
    key: LockKey,
    interest: Interest,
    /// Has the row been told that its release is to be announced?
    announced: bool,
    /// Who held the key when this last looked.
    seen: Vec<u64>,
}

impl RowWatch {
    async fn begin(&mut self) -> Result<(), BackendError> {
        if !self.postgres.0.notices.are_known_not_to_come() {
            let _ = tokio::time::timeout(LISTENING, self.interest.live()).await;
        }
        if self.interest.is_live() {
            self.announced = self.postgres.want(&self.key).await?;
        } else {
            let claim = Claim::new(self.key.clone(), Duration::ZERO);
            self.seen = row::holders(&Rows::of(&self.postgres), &claim).await?;
        }
        Ok(())
    }

    /// A release clears the row's mark and is announced; whoever waits on marks it again first, and
    /// sees then whether another one came in between.
    async fn wait(&mut self) -> Result<(), BackendError> {
        if !self.interest.is_live() {
            let Self { postgres, key, interest, seen, .. } = self;
            let claim = Claim::new(key.clone(), Duration::ZERO);
            let rows = Rows::of(postgres);
            let holders = || row::holders(&rows, &claim);
            tokio::select! {
                () = poll::until_one_less(seen, holders) => {}
                () = interest.news() => {}
            }
            return Ok(());
        }
        if !self.announced {
            self.announced = self.postgres.want(&self.key).await?;
            if !self.announced {
                return Ok(());
            }
        }
        self.interest.news().await;
        self.announced = false;
        Ok(())
    }
}

impl Watch for RowWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(async {
            if self.wait().await.is_err() {
                // The server cannot be asked now: say nothing, the engine's own tries go on.
                std::future::pending::<()>().await;
            }
        })
    }
}
