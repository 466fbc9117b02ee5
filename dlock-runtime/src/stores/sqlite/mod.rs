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

mod open;
mod rows;
mod watch;
mod written;

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use tokio::sync::Mutex;

use self::open::{Refused, explain, is_contention, open, options, other_version};
use self::watch::{FileWatch, Pauses};
use self::written::Written;
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, MAX_LISTED, Mode, Release,
    Released, Renewal, SetAttempt, Watch, validity_of,
};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row;
use crate::stores::shared::tombstones::Tombstones;

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
    /// Begun by the first waiter. `None` where the system does not notify of writes.
    written: OnceLock<Option<Written>>,
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
                        written: OnceLock::new(),
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

    async fn file_watch(&self, key: &LockKey) -> Result<FileWatch, BackendError> {
        let written = self.0.written.get_or_init(|| Written::new(&self.0.path));
        let pauses = Pauses::new(written.is_some());
        let version = self.version().await?;
        let seen = self.holders(key).await?;
        Ok(FileWatch { sqlite: self.clone(), key: key.clone(), version, seen, pauses })
    }

    /// Resolves when some process writes to the file after this call, if the system notifies of that.
    fn next_write(&self) -> impl Future<Output = ()> {
        let written = self.0.written.get().and_then(Option::as_ref).map(Written::next);
        async move {
            match written {
                Some(written) => written.await,
                None => std::future::pending().await,
            }
        }
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

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind_claim<'q>(query: Query<'q>, claim: &'q Claim) -> Query<'q> {
    query.bind(claim.key.as_str()).bind(claim.owner.as_bytes().as_slice())
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
             VALUES (?1, ?2, (SELECT max(last + 1, ?3) + ?6 FROM dlock_token), ?3 + ?4, ?5)
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
        .bind(claim.client_info.to_text())
        .bind(claim.more_tokens());
        if let Some(row) = self.write(query).await? {
            let last = row.try_get::<i64, _>(0).map_err(|error| self.explain(error))?;
            let validity = validity_of(claim.ttl);
            return Ok(Attempt::granted_up_to(last.unsigned_abs(), claim, validity));
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
        Ok(Box::new(self.file_watch(key).await?))
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
