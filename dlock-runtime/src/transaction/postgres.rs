//! Row locks in a PostgreSQL transaction.
//!
//! An inserted row that its own transaction has deleted again still makes an equal insertion wait for
//! that transaction's end, and leaves nothing behind. `ON CONFLICT` is for a row that somebody put
//! there by hand: it is locked all the same.
//!
//! Readers share a transaction's advisory lock of the key (its number is a hash of it; two keys that share
//! one merely wait for each other), which everybody else takes exclusively before the row.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Postgres, Row};

use super::Terms;
use crate::error::{BackendError, LockError};
use crate::key::LockKey;
use crate::sql::{self, Reply, postgres};
use crate::token::FencingToken;

/// How much longer than the wait the locking statement may run. `lock_timeout` bounds each single
/// wait; where several holders come in between, only `statement_timeout` bounds their sum.
///
/// In milliseconds.
const GRACE: u64 = 25;

/// The same where nothing is to be waited for: the statement itself may take a while.
const GRACE_WITHOUT_WAIT: u64 = 1000;

/// How much longer than that the answer may take.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) async fn lock_rows(
    connection: &mut PgConnection,
    keys: &[LockKey],
    terms: Terms,
) -> Result<Vec<FencingToken>, LockError> {
    let first = &keys[0];
    if !connection.is_in_transaction() {
        return Err(LockError::no_transaction(first));
    }
    let settings = Settings::of(connection, first, &terms).await?;
    if settings.isolation != "read committed" && !terms.any_isolation {
        return Err(LockError::stale_reads(first, &settings.isolation, HOW_TO_BEGIN));
    }
    let locked = lock_each(connection, keys, &terms, &settings).await;
    if locked.is_err() {
        // Gives back what was locked, keeps the caller's earlier writes, and restores the settings.
        // If it fails the connection is gone, and the transaction with it.
        let _ = sql::send::<Postgres>(connection, UNDO.to_owned()).await;
    }
    locked
}

const UNDO: &str = "ROLLBACK TO SAVEPOINT dlock; RELEASE SAVEPOINT dlock";

const HOW_TO_BEGIN: &str =
    "begin it with `pool.begin_with(\"BEGIN ISOLATION LEVEL READ COMMITTED\")`";

/// The transaction's settings before the call.
struct Settings {
    isolation: String,
    lock_timeout: String,
    statement_timeout: String,
}

impl Settings {
    async fn of(
        connection: &mut PgConnection,
        key: &LockKey,
        terms: &Terms,
    ) -> Result<Self, LockError> {
        let ask = "SELECT current_setting('transaction_isolation'), current_setting('lock_timeout'), current_setting('statement_timeout')";
        let reply = answer(connection, ask.to_owned(), key, terms).await?;
        let read = || {
            let row = reply.row()?;
            Some(Self {
                isolation: row.try_get(0).ok()?,
                lock_timeout: row.try_get(1).ok()?,
                statement_timeout: row.try_get(2).ok()?,
            })
        };
        read().ok_or_else(|| unreadable(key))
    }
}

async fn lock_each(
    connection: &mut PgConnection,
    keys: &[LockKey],
    terms: &Terms,
    settings: &Settings,
) -> Result<Vec<FencingToken>, LockError> {
    let mut tokens = Vec::with_capacity(keys.len());
    for (index, key) in keys.iter().enumerate() {
        let is_first = index == 0;
        let is_last = index + 1 == keys.len();
        let statements = statements(key, terms, settings, is_first, is_last);
        let reply = answer(connection, statements, key, terms).await?;
        // The token's is the last one.
        let row = reply.rows.iter().flatten().last().ok_or_else(|| unreadable(key))?;
        let token = row.try_get::<i64, _>(0).map_err(|_| unreadable(key))?;
        tokens.push(FencingToken::new(token.unsigned_abs()));
    }
    Ok(tokens)
}

fn statements(
    key: &LockKey,
    terms: &Terms,
    settings: &Settings,
    is_first: bool,
    is_last: bool,
) -> String {
    let (each, all) = limits(terms.millis_left());
    let Settings { lock_timeout, statement_timeout, .. } = settings;
    let begin = if is_first { "SAVEPOINT dlock; " } else { "" };
    // The settings hold until the transaction ends unless they are set back.
    let end = if is_last {
        format!(
            "; SET LOCAL lock_timeout = '{lock_timeout}'; SET LOCAL statement_timeout = '{statement_timeout}'; RELEASE SAVEPOINT dlock"
        )
    } else {
        String::new()
    };
    let number = advisory(key);
    let key = postgres::text(&postgres::stored(key));
    let limits = format!("SET LOCAL lock_timeout = {each}; SET LOCAL statement_timeout = {all}");
    if terms.shared {
        return format!(
            "{begin}{limits}; SELECT pg_advisory_xact_lock_shared({number}); \
             SELECT nextval('dlock_tokens'){end}"
        );
    }
    // `RETURNING` is computed when the row is there: the token is drawn after the lock is won.
    format!(
        "{begin}{limits}; SELECT pg_advisory_xact_lock({number}); \
         INSERT INTO dlock_rows (lock_key) VALUES ({key}) \
         ON CONFLICT (lock_key) DO UPDATE SET lock_key = excluded.lock_key \
         RETURNING nextval('dlock_tokens'); \
         DELETE FROM dlock_rows WHERE lock_key = {key}{end}"
    )
}

/// The number of a key's advisory lock: FNV-1a over 64 bits, the same in every version of dlock.
fn advisory(key: &LockKey) -> i64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = b"dlock row ".iter().chain(key.as_str().as_bytes());
    bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)).cast_signed()
}

/// `lock_timeout` and `statement_timeout` in milliseconds; 0 is no limit.
fn limits(left: Option<u64>) -> (i32, i32) {
    let most = |millis: u64| i32::try_from(millis).unwrap_or(i32::MAX);
    match left {
        None => (0, 0),
        Some(0) => (1, most(GRACE_WITHOUT_WAIT)),
        Some(left) => (most(left), most(left.saturating_add(GRACE))),
    }
}

async fn answer(
    connection: &mut PgConnection,
    statements: String,
    key: &LockKey,
    terms: &Terms,
) -> Result<Reply<Postgres>, LockError> {
    let sending = sql::send::<Postgres>(connection, statements);
    let answer = match terms.left() {
        Some(left) => tokio::time::timeout(left.saturating_add(ANSWER), sending).await,
        None => Ok(sending.await),
    };
    match answer {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(refusal(error, key, terms)),
        Err(_) => Err(failed(key, BackendError::transient("postgres did not answer in time"))),
    }
}

/// What an error of a locking statement means to the caller.
fn refusal(error: sqlx::Error, key: &LockKey, terms: &Terms) -> LockError {
    let over = terms.left().is_some_and(|left| left.is_zero());
    let what = match postgres::sqlstate(&error) {
        // lock_not_available; query_canceled: by us if the time is over, else by somebody else
        Some("55P03") => return terms.busy(key),
        Some("57014") if over => return terms.busy(key),
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
            "postgres: the tables of row locks are missing; call `dlock_runtime::transaction::create_tables(&pool)` when the process starts, or run `sql/postgres/rows.sql` of dlock-runtime"
        }
        // insufficient_privilege
        Some("42501") => {
            "postgres: this role lacks a privilege that `sql/postgres/rows.sql` of dlock-runtime names"
        }
        _ => "postgres",
    };
    let read_only = postgres::sqlstate(&error) == Some("25006");
    let transient = |error: &sqlx::Error| postgres::is_transient(error) && !read_only;
    failed(key, sql::explain(what, error, transient))
}

fn failed(key: &LockKey, source: BackendError) -> LockError {
    LockError::Backend { key: key.clone(), source }
}

fn unreadable(key: &LockKey) -> LockError {
    failed(key, BackendError::permanent("postgres gave an answer that cannot be read"))
}
