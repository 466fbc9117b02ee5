//! Row locks in a PostgreSQL transaction.
//!
//! The lock is a row that its own transaction inserts and deletes again: an equal insertion waits for the end of that
//! transaction, and nothing is left behind. `ON CONFLICT` is for a row that somebody inserted by hand: it is locked all
//! the same.
//!
//! Readers share a transaction-level advisory lock of the key, which all others acquire exclusively before the row. Its
//! number is a hash of the key; two keys with the same hash merely wait for each other.
//!
//! A token is the next number of a sequence, or the time in microseconds if that is more; the sequence is then raised to
//! it. The time alone would repeat tokens when the clock is set back. The sequence alone would repeat them after a
//! crash, because a number reaches the disk only with a commit. A rollback undoes neither.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection, Postgres, Row};

use super::dialect as postgres;
use crate::error::{BackendError, LockError};
use crate::key::LockKey;
use crate::stores::shared::sql;
use crate::stores::shared::sql::store::Dialect as _;
use crate::stores::shared::sql::tables::Table;
use crate::token::FencingToken;
use crate::transaction::answer::{
    self, Failure, LATE, LATEST, LONGEST_STATEMENT, answer, failed, unanswered,
};
use crate::transaction::sealed::{LockRows, Locking};
use crate::transaction::tables::{RowLockDatabase, sealed, store};
use crate::transaction::{RowLockOptions, Transactional};

/// How much longer than the wait the locking statement may run. `lock_timeout` bounds each single wait; if several
/// holders come in between, only `statement_timeout` bounds the sum.
///
/// In milliseconds.
const GRACE: u64 = 25;

/// The same for a statement that does not wait: its own work may take a while.
///
/// In milliseconds.
const GRACE_WITHOUT_WAIT: u64 = 400;

pub(crate) async fn lock_rows(
    connection: &mut PgConnection,
    keys: &[LockKey],
    options: RowLockOptions,
) -> Result<Vec<FencingToken>, LockError> {
    let first = &keys[0];
    if !connection.is_in_transaction() {
        return Err(LockError::no_transaction(first));
    }
    let settings = Settings::of(connection, first, &options).await?;
    if settings.isolation != "read committed" && !options.any_isolation {
        return Err(LockError::stale_reads(first, &settings.isolation, HOW_TO_BEGIN));
    }
    let mut tokens = Vec::with_capacity(keys.len());
    for (index, key) in keys.iter().enumerate() {
        match lock_key(connection, index, keys.len(), key, &options, &settings).await {
            Ok(token) => tokens.push(token),
            // After an unanswered message, another one would not be answered either.
            Err(Refusal::Unanswered) => return Err(unanswered("postgres", key)),
            Err(Refusal::Answered(error)) => {
                return Err(undo(connection, error, key, &options).await);
            }
        }
    }
    Ok(tokens)
}

const HOW_TO_BEGIN: &str =
    "begin it with `pool.begin_with(\"BEGIN ISOLATION LEVEL READ COMMITTED\")`";

/// The transaction's settings before the call.
struct Settings {
    isolation: String,
    lock_timeout: String,
    statement_timeout: String,
    /// Can the server check whether its client is still connected, and does it not do so already?
    may_watch_client: bool,
    /// How long one statement waits.
    longest: Duration,
}

/// `client_connection_check_interval` exists since version 14; on some systems it cannot be set. A statement detects
/// deadlocks only if it waits for longer than `deadlock_timeout`.
const ASK: &str = "SELECT current_setting('transaction_isolation'), current_setting('lock_timeout'), \
    current_setting('statement_timeout'), \
    version() LIKE '%linux%' AND coalesce(current_setting('client_connection_check_interval', true) = '0', false), \
    (extract(epoch FROM current_setting('deadlock_timeout')::interval) * 1000)::bigint";

impl Settings {
    async fn of(
        connection: &mut PgConnection,
        key: &LockKey,
        options: &RowLockOptions,
    ) -> Result<Self, LockError> {
        let limit = answer::limit(options, Duration::ZERO, LATE);
        let reply = match answer::<Postgres>(connection, ASK.to_owned(), limit).await {
            Ok(reply) => reply,
            Err(Failure::Sql(error)) => return Err(refusal(error, key)),
            Err(Failure::Unanswered) => return Err(unanswered("postgres", key)),
        };
        let read = || {
            let row = reply.row()?;
            let deadlock_timeout = row.try_get::<i64, _>(4).ok()?.unsigned_abs();
            Some(Self {
                isolation: row.try_get(0).ok()?,
                lock_timeout: row.try_get(1).ok()?,
                statement_timeout: row.try_get(2).ok()?,
                may_watch_client: row.try_get(3).ok()?,
                longest: LONGEST_STATEMENT.saturating_add(Duration::from_millis(deadlock_timeout)),
            })
        };
        read().ok_or_else(|| unreadable(key))
    }
}

/// Why a key was not locked.
enum Refusal {
    Unanswered,
    Answered(LockError),
}

/// Locks one of the keys; a long wait takes several statements.
async fn lock_key(
    connection: &mut PgConnection,
    index: usize,
    count: usize,
    key: &LockKey,
    options: &RowLockOptions,
    settings: &Settings,
) -> Result<FencingToken, Refusal> {
    let mut is_again = false;
    loop {
        let wait = options.next_wait(settings.longest);
        let before = if is_again { "ROLLBACK TO SAVEPOINT" } else { "SAVEPOINT" };
        let before = format!("{before} {}", savepoint(index));
        let after = if index + 1 == count { release() } else { String::new() };
        let statements = format!("{before}; {}{after}", locking(key, options, settings, wait));
        let began = Instant::now();
        let limit = answer::limit(options, wait, LATE);
        let error = match answer::<Postgres>(connection, statements, limit).await {
            Ok(reply) => {
                // The token is in the last row.
                let row = reply.rows.iter().flatten().last();
                let token = row.and_then(|row| row.try_get::<i64, _>(0).ok());
                let token = token.ok_or_else(|| Refusal::Answered(unreadable(key)))?;
                return Ok(FencingToken::new(token.unsigned_abs()));
            }
            Err(Failure::Sql(error)) => error,
            Err(Failure::Unanswered) => return Err(Refusal::Unanswered),
        };
        match postgres::sqlstate(&error) {
            // lock_not_available
            Some("55P03") if options.is_over() => return Err(Refusal::Answered(options.busy(key))),
            Some("55P03") => {}
            // query_canceled: by its own limit, or by somebody else. A try without a wait will tell whether the
            // key is held, or the server is slow.
            Some("57014") if began.elapsed() >= wait && !wait.is_zero() => {}
            _ => return Err(Refusal::Answered(refusal(error, key))),
        }
        is_again = true;
    }
}

/// Releases what was locked, keeps the caller's earlier writes, and restores the settings. Returns what the caller gets
/// after this error.
async fn undo(
    connection: &mut PgConnection,
    error: LockError,
    key: &LockKey,
    options: &RowLockOptions,
) -> LockError {
    let undo = format!("ROLLBACK TO SAVEPOINT {}{}", savepoint(0), release());
    let limit = answer::limit(options, Duration::ZERO, LATEST);
    match answer::<Postgres>(connection, undo, limit).await {
        // After a busy lock the caller may continue the transaction, but not this one.
        Err(Failure::Unanswered) => unanswered("postgres", key),
        Err(Failure::Sql(failure)) if error.is_busy() => failed(
            key,
            sql::explain(
                "postgres: the lock was busy, and the transaction is lost: roll it back",
                failure,
                Postgres::is_transient,
            ),
        ),
        Ok(_) | Err(Failure::Sql(_)) => error,
    }
}

/// Each key has its own: a try that ends without the lock keeps the keys before it.
fn savepoint(index: usize) -> String {
    format!("dlock_{index}")
}

/// Releasing the first key's savepoint releases the others, too.
fn release() -> String {
    format!("; RELEASE SAVEPOINT {}", savepoint(0))
}

/// Locks a key and returns its token. The settings would last until the transaction ends, so each message restores them:
/// the caller may get no answer.
fn locking(key: &LockKey, options: &RowLockOptions, settings: &Settings, wait: Duration) -> String {
    let Settings { lock_timeout, statement_timeout, may_watch_client, .. } = settings;
    let watch = |interval: &str| {
        let set = format!("SET LOCAL client_connection_check_interval = {interval}; ");
        if *may_watch_client { set } else { String::new() }
    };
    let (begin_watch, end_watch) = (watch("1000"), watch("0"));
    let (each, all) = limits(wait);
    let number = advisory(key);
    let lock = if options.is_shared() {
        format!("SELECT pg_advisory_xact_lock_shared({number})")
    } else {
        let key = postgres::text(&postgres::stored(key));
        format!(
            "SELECT pg_advisory_xact_lock({number}); \
             INSERT INTO dlock_rows (lock_key) VALUES ({key}) \
             ON CONFLICT (lock_key) DO UPDATE SET lock_key = excluded.lock_key; \
             DELETE FROM dlock_rows WHERE lock_key = {key}"
        )
    };
    format!(
        "SET LOCAL lock_timeout = {each}; SET LOCAL statement_timeout = {all}; {begin_watch}\
         {lock}; SET LOCAL lock_timeout = 0; {DRAW}; {end_watch}\
         SET LOCAL lock_timeout = '{lock_timeout}'; SET LOCAL statement_timeout = '{statement_timeout}'"
    )
}

/// Draws a token once the lock is acquired. Nobody else may raise the sequence meanwhile, or it could be set to less
/// than what another transaction has drawn. The rollback to the savepoint releases that advisory lock, and undoes
/// nothing else.
const DRAW: &str = "SAVEPOINT dlock_draw; SELECT pg_advisory_xact_lock(1684827999, 1); \
    SELECT CASE WHEN time > drawn THEN setval('dlock_tokens', time) ELSE drawn END \
    FROM (SELECT nextval('dlock_tokens') AS drawn, \
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS time OFFSET 0) AS next; \
    ROLLBACK TO SAVEPOINT dlock_draw; RELEASE SAVEPOINT dlock_draw";

/// The number of a key's advisory lock: FNV-1a over 64 bits, the same in every version of dlock.
fn advisory(key: &LockKey) -> i64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = b"dlock row ".iter().chain(key.as_str().as_bytes());
    bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)).cast_signed()
}

/// `lock_timeout` and `statement_timeout` in milliseconds.
fn limits(wait: Duration) -> (i32, i32) {
    let most = |millis: u64| i32::try_from(millis).unwrap_or(i32::MAX);
    match answer::millis(wait) {
        0 => (1, most(GRACE_WITHOUT_WAIT)),
        wait => (most(wait), most(wait.saturating_add(GRACE))),
    }
}

/// The caller's error for an error of a locking statement.
fn refusal(error: sqlx::Error, key: &LockKey) -> LockError {
    let what = match postgres::sqlstate(&error) {
        // no_active_sql_transaction
        Some("25P01") => return LockError::no_transaction(key),
        // in_failed_sql_transaction
        Some("25P02") => "postgres: an earlier statement of this transaction failed; roll it back",
        Some("40P01") => {
            "postgres: deadlock with another transaction; roll this one back and begin again"
        }
        Some("40001") => "postgres: roll this transaction back and begin again",
        // undefined_table
        Some("42P01") => {
            "postgres: the tables of row locks are missing; call `dlock_runtime::transaction::create_tables(&pool)` when the process starts, or run `src/stores/postgres/rows.sql` of dlock-runtime"
        }
        // insufficient_privilege
        Some("42501") => {
            "postgres: this role lacks a privilege that `src/stores/postgres/rows.sql` of dlock-runtime lists"
        }
        _ => "postgres",
    };
    let read_only = postgres::sqlstate(&error) == Some("25006");
    let transient = |error: &sqlx::Error| Postgres::is_transient(error) && !read_only;
    failed(key, sql::explain(what, error, transient))
}

fn unreadable(key: &LockKey) -> LockError {
    failed(key, BackendError::permanent("postgres sent an answer that cannot be read"))
}

impl LockRows for sqlx::PgConnection {
    fn lock_rows<'a>(&'a mut self, keys: &'a [LockKey], options: RowLockOptions) -> Locking<'a> {
        Box::pin(lock_rows(self, keys, options))
    }
}

impl Transactional for sqlx::PgConnection {}

impl RowLockDatabase for sqlx::Postgres {}

/// Fails like a statement without the privilege: earlier versions did not need it.
const MAY_RAISE: &str = "DO $$ BEGIN \
    IF NOT has_sequence_privilege('dlock_tokens', 'USAGE') OR NOT has_sequence_privilege('dlock_tokens', 'UPDATE') THEN \
    RAISE insufficient_privilege USING MESSAGE = 'permission denied: USAGE and UPDATE on sequence dlock_tokens are needed'; \
    END IF; END $$";

impl sealed::Tables for sqlx::Postgres {
    async fn create(pool: sqlx::Pool<Self>) -> Result<(), BackendError> {
        let table = Table {
            name: "dlock_rows",
            file: "src/stores/postgres/rows.sql",
            statements: include_str!("rows.sql").to_owned(),
            probe: format!(
                "SELECT count(*), 'dlock_tokens'::regclass FROM dlock_rows; {MAY_RAISE}"
            ),
        };
        table.ensure(&store(pool)).await
    }
}
