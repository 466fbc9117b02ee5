//! Leases in a SQLite file that the processes of one machine share.
//!
//! Every write is a single statement, and therefore a transaction of its own. SQLite takes the write
//! lock before such a statement reads anything (as with `BEGIN IMMEDIATE`), and a dropped future
//! never leaves a transaction open. One connection executes all writes in the order in which they
//! were requested, so a release runs after any acquire that was abandoned before it. If an acquire
//! of the same owner is requested after that release, this process refuses it.
//!
//! Tokens come from one counter per file, `max(last + 1, now in µs)`. The journal is in WAL mode and
//! is not flushed on every commit, so a power failure may undo the last commits. It ends all
//! holders too, and the clock keeps the tokens growing even then.
//!
//! # What it does not promise
//! The file must be on a local disk. WAL needs shared memory, which a network file system does not
//! provide. Leases expire by the machine's clock. If the clock steps forward, they expire early.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use tokio::sync::Mutex;

use crate::backend::{
    Answer, AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, MAX_LISTED, Mode,
    Release, Released, Renewal, SetAttempt, Watch, validity_of,
};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{self, Change, LeaseRow, NewRow, Purpose, RowOwner, RowStore};
use crate::stores::shared::tombstones::Tombstones;
use crate::token::FencingToken;

/// How long a statement waits for another process's write. Then it fails, and the engine retries it.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

/// How long `connect` retries while other processes open the same file.
const OPENING: Duration = Duration::from_secs(10);

/// How often the rows of dead holders are deleted. They have expired, so they block nobody.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// Leases in a SQLite file that the processes of one machine share.
///
/// The file must be on a local disk. See [Choosing a backend](crate::guide::backends).
///
/// Clones share their connections.
#[derive(Clone)]
pub struct Sqlite(Arc<Inner>);

struct Inner {
    path: String,
    writer: Mutex<SqliteConnection>,
    /// Sees the commits of the writer and of other processes.
    reader: Mutex<SqliteConnection>,
    swept: AtomicI64,
    tombstones: Tombstones,
}

impl Sqlite {
    /// Opens `sqlite:path` (or `sqlite://path`). Creates the file and its tables if they are missing.
    ///
    /// # Errors
    /// An invalid URL, an in-memory database (use the memory backend), a file that cannot be opened,
    /// a file from another version of dlock, or a file that others keep locked for 10 s.
    ///
    /// # Cancel safety
    /// Cancel safe: creating the tables is idempotent.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        let options = options(url)?;
        let path = options.get_filename().display().to_string();
        let began = tokio::time::Instant::now();
        loop {
            match open(&options).await {
                Ok((writer, reader)) => {
                    return Ok(Self(Arc::new(Inner {
                        path,
                        writer: Mutex::new(writer),
                        reader: Mutex::new(reader),
                        swept: AtomicI64::new(0),
                        tombstones: Tombstones::default(),
                    })));
                }
                // Switching a new file to WAL fails at once while another process does the same.
                Err(Refused::Failed(error))
                    if is_contention(&error) && began.elapsed() < OPENING =>
                {
                    tokio::time::sleep(Duration::from_millis(rand::random_range(5..30))).await;
                }
                Err(Refused::Failed(error)) => return Err(explain(&path, error).not_sent()),
                Err(Refused::OtherVersion(version)) => return Err(other_version(&path, version)),
            }
        }
    }

    fn explain(&self, error: sqlx::Error) -> BackendError {
        explain(&self.0.path, error)
    }

    /// Runs one write to completion. A returned row means nothing until the statement has committed.
    async fn write(&self, query: Query<'_>) -> Result<Option<SqliteRow>, BackendError> {
        let mut writer = self.0.writer.lock().await;
        let mut rows = query.fetch_all(&mut *writer).await.map_err(|error| self.explain(error))?;
        Ok(rows.pop())
    }

    async fn read(&self, query: Query<'_>) -> Result<Option<SqliteRow>, BackendError> {
        let mut reader = self.0.reader.lock().await;
        let mut rows = query.fetch_all(&mut *reader).await.map_err(|error| self.explain(error))?;
        Ok(rows.pop())
    }

    async fn sweep(&self) -> Result<(), BackendError> {
        let now = now_us();
        let due = self.0.swept.load(Ordering::Relaxed) + micros(SWEEP_EVERY);
        if now >= due {
            self.0.swept.store(now, Ordering::Relaxed);
            self.write(
                sqlx::query(
                    "DELETE FROM dlock_locks WHERE expires_us <= ?1 AND group_until_us <= ?1",
                )
                .bind(now),
            )
            .await?;
        }
        Ok(())
    }

    /// A number that changes whenever a connection other than the reader commits.
    async fn version(&self) -> Result<i64, BackendError> {
        let row = self.read(sqlx::query("PRAGMA data_version")).await?;
        match row {
            Some(row) => row.try_get(0).map_err(|error| self.explain(error)),
            None => Err(BackendError::permanent("sqlite returned no data_version")),
        }
    }
}

const LOOK: &str = "SELECT owner, token, expires_us, lock_group, group_until_us, claimant
     FROM dlock_locks WHERE key = ?1";

impl Sqlite {
    /// Like [`RowStore::look`], but on the reader: does not wait for writes in progress.
    async fn glance(&self, key: &LockKey) -> Result<Option<LeaseRow>, BackendError> {
        let now = now_us();
        let row = self.read(sqlx::query(LOOK).bind(key.as_str())).await?;
        row.map(|row| self.lease_row(&row, now)).transpose()
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<u64>, BackendError> {
        Ok(self.glance(key).await?.map(|row| row.holders()).unwrap_or_default())
    }

    fn lease_row(&self, row: &SqliteRow, now: i64) -> Result<LeaseRow, BackendError> {
        let parse = || -> Result<LeaseRow, sqlx::Error> {
            let number =
                |column| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(column)?.unsigned_abs());
            Ok(LeaseRow {
                owner: RowOwner::from_blob(row.try_get_unchecked(0)?),
                client_info: ClientInfo::parse(row.try_get(5)?),
                token: number(1)?,
                expires: number(2)?,
                group: row.try_get(3)?,
                group_until: number(4)?,
                now: now.unsigned_abs(),
                // A release runs after any acquire that was abandoned before it.
                given_up: false,
            })
        };
        parse().map_err(|error| self.explain(error))
    }
}

impl RowStore for Sqlite {
    /// Reads on the writer, after any abandoned acquire that is still in progress there.
    async fn look(&self, claim: &Claim, _: Purpose) -> Result<Option<LeaseRow>, BackendError> {
        let now = now_us();
        let row = self.write(sqlx::query(LOOK).bind(claim.key.as_str())).await?;
        row.map(|row| self.lease_row(&row, now)).transpose()
    }

    async fn look_at_all(&self, claims: &[Claim]) -> Result<Vec<Option<LeaseRow>>, BackendError> {
        let mut rows = Vec::with_capacity(claims.len());
        for claim in claims {
            rows.push(self.look(claim, Purpose::Acquire).await?);
        }
        Ok(rows)
    }

    async fn make(&self, key: &LockKey) -> Result<(), BackendError> {
        let query = sqlx::query(
            "INSERT INTO dlock_locks (key, owner, token, expires_us)
             VALUES (?1, x'', (SELECT max(last + 1, ?2) FROM dlock_token), 0) ON CONFLICT DO NOTHING",
        );
        self.write(query.bind(key.as_str()).bind(now_us())).await.map(|_| ())
    }

    async fn exchange(
        &self,
        claim: &Claim,
        old: &LeaseRow,
        new: &NewRow,
        _: Purpose,
    ) -> Result<bool, BackendError> {
        let query = if new.is_idle(old.now) {
            sqlx::query(
                "DELETE FROM dlock_locks WHERE key = ?1 AND owner = ?2 AND token = ?3
                 AND expires_us = ?4 AND lock_group IS ?5 RETURNING 1",
            )
        } else {
            sqlx::query(
                "UPDATE dlock_locks SET owner = ?6, token = ?7, expires_us = ?8,
                    lock_group = ?9, group_until_us = ?10, claimant = ?11
                 WHERE key = ?1 AND owner = ?2 AND token = ?3
                    AND expires_us = ?4 AND lock_group IS ?5 RETURNING 1",
            )
        };
        let query =
            query.bind(claim.key.as_str()).bind(old.owner.to_blob()).bind(old.token.cast_signed());
        let mut query = query.bind(old.expires.cast_signed()).bind(old.group.as_deref());
        if !new.is_idle(old.now) {
            query = query.bind(new.owner.to_blob()).bind(new.token.cast_signed());
            query = query.bind(new.expires.cast_signed()).bind(new.group.as_deref());
            query = query.bind(new.group_until.cast_signed());
            query =
                query.bind(new.client_info.as_ref().map(ClientInfo::to_text).unwrap_or_default());
        }
        Ok(self.write(query).await?.is_some())
    }

    async fn exchange_all(&self, changes: &[Change<'_>]) -> Result<bool, BackendError> {
        let statement = exchange_all(changes.len());
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for Change { claim, old, new } in changes {
            query = query.bind(claim.key.as_str()).bind(old.owner.to_blob());
            query = query.bind(old.token.cast_signed()).bind(old.expires.cast_signed());
            query = query.bind(old.group.as_deref()).bind(new.owner.to_blob());
            query = query.bind(new.token.cast_signed()).bind(new.expires.cast_signed());
            query = query.bind(new.group.as_deref()).bind(new.group_until.cast_signed());
            query =
                query.bind(new.client_info.as_ref().map(ClientInfo::to_text).unwrap_or_default());
        }
        Ok(self.write(query).await?.is_some())
    }
}

/// One row of a change: the key, the old values, the new values.
const CHANGE: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Changes all rows or none. One statement, so that a dropped future cannot leave it half done.
fn exchange_all(rows: usize) -> String {
    let changes = vec![CHANGE; rows].join(", ");
    format!(
        "WITH change (key, old_owner, old_token, old_expires, old_group,
                      owner, token, expires, lock_group, group_until, claimant) AS (VALUES {changes})
         UPDATE dlock_locks SET owner = change.owner, token = change.token,
            expires_us = change.expires, lock_group = change.lock_group,
            group_until_us = change.group_until, claimant = change.claimant
         FROM change WHERE dlock_locks.key = change.key AND {rows} =
            (SELECT count(*) FROM change JOIN dlock_locks AS present ON present.key = change.key
             WHERE present.owner = change.old_owner AND present.token = change.old_token
                AND present.expires_us = change.old_expires
                AND present.lock_group IS change.old_group)
         RETURNING 1"
    )
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind_claim<'q>(query: Query<'q>, claim: &'q Claim) -> Query<'q> {
    query.bind(claim.key.as_str()).bind(claim.owner.as_bytes().as_slice())
}

fn options(url: &str) -> Result<SqliteConnectOptions, BackendError> {
    if url.contains(":memory:") || url.contains("mode=memory") {
        let problem = "only one connection can see an in-memory SQLite database; use the memory backend (`memory:`) instead";
        return Err(BackendError::permanent(problem).not_sent());
    }
    let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
    if path.is_empty() || path.starts_with('?') || !url.starts_with("sqlite:") {
        let problem = "the URL of a SQLite backend is `sqlite:` and the path of a file";
        return Err(BackendError::permanent(problem).not_sent());
    }
    let options =
        SqliteConnectOptions::from_str(url).map_err(|error| explain(url, error).not_sent())?;
    Ok(options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging())
}

/// The version of the tables in `schema.sql`.
const VERSION: i64 = 1;

/// Fails if the table lacks a column that the statements use.
const COLUMNS: &str = "SELECT key, owner, token, expires_us, claimant, lock_group, group_until_us
     FROM dlock_locks LIMIT 0";

/// Why a file could not be opened.
enum Refused {
    OtherVersion(i64),
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

async fn open(
    options: &SqliteConnectOptions,
) -> Result<(SqliteConnection, SqliteConnection), Refused> {
    let mut writer = SqliteConnection::connect_with(options).await?;
    // Leaves the tables of another version untouched.
    refuse_other_version(&mut writer).await?;
    // Only if something is missing, because the statements take the write lock.
    let ready = sqlx::query("SELECT count(*) = 5 FROM sqlite_schema WHERE name LIKE 'dlock\\_%' ESCAPE '\\' AND type IN ('table', 'trigger')")
        .fetch_one(&mut writer)
        .await?
        .try_get::<bool, _>(0)?;
    if !ready {
        writer.execute(include_str!("schema.sql")).await?;
        // Another process may have created them first.
        refuse_other_version(&mut writer).await?;
    }
    writer.execute(COLUMNS).await?;
    let reader = SqliteConnection::connect_with(options).await?;
    Ok((writer, reader))
}

/// Refuses a file of another version. A file without a version is new, or older than the version table.
async fn refuse_other_version(connection: &mut SqliteConnection) -> Result<(), Refused> {
    let table = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'dlock_version'");
    if table.fetch_optional(&mut *connection).await?.is_none() {
        return Ok(());
    }
    let query = sqlx::query_scalar::<_, i64>("SELECT version FROM dlock_version");
    match query.fetch_optional(connection).await? {
        Some(other) if other != VERSION => Err(Refused::OtherVersion(other)),
        _ => Ok(()),
    }
}

fn other_version(path: &str, version: i64) -> BackendError {
    let problem = format!(
        "sqlite file {path}: its tables have version {version}, but this version of dlock uses version {VERSION}; update the older services, or give each version its own file"
    );
    BackendError::permanent(problem).not_sent()
}

fn explain(path: &str, error: sqlx::Error) -> BackendError {
    let mut message = format!("sqlite file {path}: {error}");
    if error.as_database_error().is_some_and(|error| error.message().contains("no such column")) {
        message.push_str("; its table `dlock_locks` was created by another version of dlock: while no process uses the file, move it away, and dlock creates a new one");
    }
    let explained = if is_contention(&error) {
        // The statement timed out on the write lock and never ran.
        BackendError::transient(message).not_sent()
    } else if matches!(error, sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed) {
        BackendError::transient(message)
    } else {
        BackendError::permanent(message)
    };
    explained.with_source(error)
}

/// `SQLITE_BUSY` or `SQLITE_LOCKED`, in any of their extended forms.
fn is_contention(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    micros(now)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl AsyncBackend for Sqlite {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::SHARED_STORE
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        self.sweep().await?;
        if !claim.is_plain() {
            return row::acquire(self, claim).await;
        }
        let now = now_us();
        // `excluded.token` is computed under the write lock, so tokens are drawn in commit order.
        let query = sqlx::query(
            "INSERT INTO dlock_locks (key, owner, token, expires_us, claimant)
             VALUES (?1, ?2, (SELECT max(last + 1, ?3) FROM dlock_token), ?3 + ?4, ?5)
             ON CONFLICT (key) DO UPDATE SET
                token = iif(dlock_locks.owner = excluded.owner AND dlock_locks.expires_us > ?3,
                            dlock_locks.token, excluded.token),
                owner = excluded.owner,
                expires_us = max(dlock_locks.expires_us, excluded.expires_us),
                claimant = excluded.claimant,
                lock_group = NULL
             WHERE (dlock_locks.owner = excluded.owner OR dlock_locks.expires_us <= ?3)
                AND (dlock_locks.lock_group IS NULL OR dlock_locks.group_until_us <= ?3)
             RETURNING token",
        )
        .bind(claim.key.as_str())
        .bind(claim.owner.as_bytes().as_slice())
        .bind(now)
        .bind(micros(claim.ttl))
        .bind(claim.client_info.to_text());
        if let Some(row) = self.write(query).await? {
            let token = row.try_get::<i64, _>(0).map_err(|error| self.explain(error))?;
            return Ok(Attempt::granted(
                FencingToken::new(token.unsigned_abs()),
                validity_of(claim.ttl),
            ));
        }
        match self.glance(&claim.key).await? {
            Some(row) if row.has_group() => row::acquire(self, claim).await,
            row => Ok(Attempt::busy(Some(row.map_or(Duration::ZERO, |row| row.left())))),
        }
    }

    async fn try_acquire_set(&self, claims: &[Claim]) -> Result<SetAttempt, BackendError> {
        if let Some(at) = self.0.tombstones.first_of(claims) {
            return Ok(SetAttempt::busy(at, None, false));
        }
        self.sweep().await?;
        row::acquire_set(self, claims).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        if claim.mode != Mode::Exclusive {
            return row::renew(self, claim).await;
        }
        let query = sqlx::query(
            "UPDATE dlock_locks SET expires_us = max(expires_us, ?3 + ?4)
             WHERE key = ?1 AND owner = ?2 AND expires_us > ?3 RETURNING 1",
        );
        let row =
            self.write(bind_claim(query, claim).bind(now_us()).bind(micros(claim.ttl))).await?;
        Ok(match row {
            Some(_) => Renewal::Renewed { validity: validity_of(claim.ttl) },
            None => Renewal::NotHeld,
        })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.0.tombstones.note(claim);
        }
        if claim.may_be_in_a_group() {
            return row::release(self, claim, release).await;
        }
        let query = match release.keep_for {
            None => {
                let query = sqlx::query(
                    "DELETE FROM dlock_locks WHERE key = ?1 AND owner = ?2
                     AND (lock_group IS NULL OR group_until_us <= ?3) RETURNING expires_us > ?3",
                );
                bind_claim(query, claim).bind(now_us())
            }
            Some(rest) => {
                let query = sqlx::query(
                    "UPDATE dlock_locks SET owner = x'', expires_us = ?3 + ?4
                     WHERE key = ?1 AND owner = ?2 AND expires_us > ?3 RETURNING 1",
                );
                bind_claim(query, claim).bind(now_us()).bind(micros(rest))
            }
        };
        match self.write(query).await? {
            Some(row) if row.try_get(0).map_err(|error| self.explain(error))? => {
                Ok(Released::Released)
            }
            Some(_) => Ok(Released::NotHeld),
            // The row may belong to a queue of waiters, or the hold was revoked.
            None => row::release(self, claim, release).await,
        }
    }

    async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        let version = self.version().await?;
        let seen = self.holders(key).await?;
        Ok(Box::new(FileWatch { sqlite: self.clone(), key: key.clone(), version, seen }))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        Ok(self.glance(key).await?.and_then(|row| row.holder()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let now = now_us();
        let found = sqlx::query(
            "SELECT owner, token, expires_us, lock_group, group_until_us, claimant, key FROM dlock_locks
             WHERE substr(key, 1, length(?1)) = ?1 AND (expires_us > ?2 OR group_until_us > ?2)
             ORDER BY key LIMIT ?3",
        );
        let most = i64::try_from(MAX_LISTED).unwrap_or(i64::MAX);
        let found = found.bind(prefix).bind(now).bind(most);
        let mut reader = self.0.reader.lock().await;
        let rows = found.fetch_all(&mut *reader).await.map_err(|error| self.explain(error))?;
        let states = rows.iter().map(|row| {
            let key = row.try_get::<String, _>(6).map_err(|error| self.explain(error))?;
            Ok(self.lease_row(row, now)?.state(key.into()))
        });
        let states = states.collect::<Result<Vec<_>, BackendError>>()?;
        Ok(states.into_iter().filter(|state| !state.is_idle()).collect())
    }

    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        row::revoke(self, key).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        row::force_release(self, key).await
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.0.path).finish_non_exhaustive()
    }
}

/// Polls the file's version with growing pauses, because SQLite sends no notifications.
struct FileWatch {
    sqlite: Sqlite,
    key: LockKey,
    version: i64,
    /// The holders of the key at the last poll.
    seen: Vec<u64>,
}

impl FileWatch {
    const FIRST_PAUSE: Duration = Duration::from_micros(500);
    const LONGEST_PAUSE: Duration = Duration::from_millis(10);

    async fn wait(&mut self) -> Result<(), BackendError> {
        let mut pause = Self::FIRST_PAUSE;
        loop {
            let version = self.sqlite.version().await?;
            if version != self.version {
                // Something changed, perhaps another key: read the holders of this one.
                let holders = self.sqlite.holders(&self.key).await?;
                self.version = version;
                let one_less = self.seen.iter().any(|one| !holders.contains(one));
                self.seen = holders;
                if one_less || self.seen.is_empty() {
                    return Ok(());
                }
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.7..=1.0))).await;
            pause = (pause * 2).min(Self::LONGEST_PAUSE);
        }
    }
}

impl Watch for FileWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(async {
            if self.wait().await.is_err() {
                // The file cannot be read now. The engine still polls on its own.
                std::future::pending::<()>().await;
            }
        })
    }
}
