//! Row locks in a MySQL or MariaDB transaction.
//!
//! `SELECT … FOR UPDATE` waits, within a limit of its own: MySQL knows `MAX_EXECUTION_TIME` (an
//! optimizer hint, to the millisecond, for `SELECT` only), MariaDB `SET STATEMENT max_statement_time`.
//! Each reads the other's as a comment. `innodb_lock_wait_timeout` counts whole seconds, and may be
//! set to roll the whole transaction back. The upsert behind it makes the row when there is none and
//! draws the token.
//!
//! Readers take `LOCK IN SHARE MODE` on the row. They cannot write their token into it: writers draw every
//! other number, and a reader's is the one after its row's. The first reader of a key that has no row makes
//! it, and is alone until its transaction ends.

use std::time::Duration;

use sqlx::{Connection, MySql, MySqlConnection, Row};

use super::Terms;
use crate::error::{BackendError, LockError};
use crate::key::LockKey;
use crate::sql::{self, Reply, mysql};
use crate::token::FencingToken;

/// The least time a locking statement gets: its limit counts its own work as well.
/// In milliseconds.
const LEAST: u64 = 30;

/// How much longer than its limit the answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// MariaDB's largest `innodb_lock_wait_timeout`.
const NO_LIMIT: u64 = 100_000_000;

pub(super) async fn lock_rows(
    connection: &mut MySqlConnection,
    keys: &[LockKey],
    terms: Terms,
) -> Result<Vec<FencingToken>, LockError> {
    let first = &keys[0];
    if !connection.is_in_transaction() {
        return Err(LockError::no_transaction(first));
    }
    let settings = Settings::of(connection, first, &terms).await?;
    let reads_afresh = matches!(&*settings.isolation, "READ-COMMITTED" | "READ-UNCOMMITTED");
    if !reads_afresh && !terms.any_isolation {
        return Err(LockError::stale_reads(first, &settings.isolation, HOW_TO_BEGIN));
    }
    let mut tokens = Vec::with_capacity(keys.len());
    for key in keys {
        tokens.push(lock_row(connection, key, &terms, &settings).await?);
    }
    Ok(tokens)
}

const HOW_TO_BEGIN: &str = "let the pool's connections `SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED` (`after_connect` of its options)";

/// The session's settings.
struct Settings {
    isolation: String,
    /// Does a lock wait timeout roll the whole transaction back, and not only its statement?
    rollback_on_timeout: bool,
}

impl Settings {
    async fn of(
        connection: &mut MySqlConnection,
        key: &LockKey,
        terms: &Terms,
    ) -> Result<Self, LockError> {
        // MariaDB's name for it, and MySQL's.
        let ask = "SELECT /*M! @@tx_isolation */ /*!80000 @@transaction_isolation */, @@innodb_rollback_on_timeout";
        let reply = answer(connection, ask.to_owned(), terms).await;
        let reply = reply.map_err(|failure| failure.explained(key, terms, false))?;
        let read = || {
            let row = reply.row()?;
            let rollback_on_timeout = row.try_get::<i64, _>(1).ok()? != 0;
            Some(Self { isolation: row.try_get(0).ok()?, rollback_on_timeout })
        };
        read().ok_or_else(|| unreadable(key))
    }
}

async fn lock_row(
    connection: &mut MySqlConnection,
    key: &LockKey,
    terms: &Terms,
    settings: &Settings,
) -> Result<FencingToken, LockError> {
    let mut shared = terms.shared;
    loop {
        let left = terms.millis_left();
        let statements = if shared { reading(key, left) } else { writing(key, left) };
        let reply = match answer(connection, statements, terms).await {
            Ok(reply) => reply,
            // MySQL's own limit for a lock wait came before ours.
            Err(Failure::Sql(error))
                if mysql::number(&error) == Some(1205)
                    && !settings.rollback_on_timeout
                    && terms.left().is_none_or(|left| !left.is_zero()) =>
            {
                continue;
            }
            Err(failure) => {
                return Err(failure.explained(key, terms, settings.rollback_on_timeout));
            }
        };
        let token = |statement: usize| -> Option<u64> {
            reply.rows.get(statement)?.first()?.try_get(0).ok()
        };
        // What the last holder left, as the locking read and as a plain read sees it.
        if let (Some(locked), plain) = (token(0), token(1))
            && plain != Some(locked)
            && !terms.any_isolation
        {
            return Err(LockError::stale_reads(
                key,
                "a snapshot older than the lock",
                HOW_TO_BEGIN,
            ));
        }
        if shared {
            let Some(token) = token(0) else {
                shared = false;
                continue;
            };
            return Ok(FencingToken::new(token + 1));
        }
        return match reply.last.map(|result| result.last_insert_id()) {
            Some(token) if token > 0 => Ok(FencingToken::new(token)),
            _ => Err(unreadable(key)),
        };
    }
}

/// The locking read, and what a plain read sees of the same row.
fn reading(key: &LockKey, left: Option<u64>) -> String {
    look(key, left, "LOCK IN SHARE MODE")
}

fn writing(key: &LockKey, left: Option<u64>) -> String {
    let look = look(key, left, "FOR UPDATE");
    let (limited, _) = limits(left);
    let key = mysql::bytes(key.as_str().as_bytes());
    let now = mysql::NOW_MICROS;
    format!(
        "{look}; \
         {limited} INSERT INTO dlock_rows (lock_key, token, used_at) \
         SELECT {key}, LAST_INSERT_ID(GREATEST({now}, floor.token + 2)), UTC_TIMESTAMP(6) FROM dlock_rows AS floor WHERE floor.lock_key = '' \
         ON DUPLICATE KEY UPDATE token = LAST_INSERT_ID(GREATEST({now}, dlock_rows.token + 2)), used_at = UTC_TIMESTAMP(6)"
    )
}

fn look(key: &LockKey, left: Option<u64>, strength: &str) -> String {
    let (limited, millis) = limits(left);
    let key = mysql::bytes(key.as_str().as_bytes());
    format!(
        "{limited} SELECT /*+ MAX_EXECUTION_TIME({millis}) */ token FROM dlock_rows WHERE lock_key = {key} {strength}; \
         SELECT token FROM dlock_rows WHERE lock_key = {key}"
    )
}

/// What bounds a statement of MariaDB, and the milliseconds of MySQL's own hint.
fn limits(left: Option<u64>) -> (String, u64) {
    let (millis, seconds) = match left.map(|left| left.max(LEAST)) {
        None => (0, NO_LIMIT),
        Some(limit) => (limit.min(u64::from(u32::MAX)), limit / 1000 + 1),
    };
    let limited = format!(
        "/*M! SET STATEMENT max_statement_time = {}.{:03}, innodb_lock_wait_timeout = {} FOR */",
        millis / 1000,
        millis % 1000,
        seconds.min(NO_LIMIT),
    );
    (limited, millis)
}

/// Why there is no answer.
enum Failure {
    Sql(sqlx::Error),
    Unanswered,
}

async fn answer(
    connection: &mut MySqlConnection,
    statements: String,
    terms: &Terms,
) -> Result<Reply<MySql>, Failure> {
    let sending = sql::send::<MySql>(connection, statements);
    let answer = match terms.left() {
        Some(left) => tokio::time::timeout(left.saturating_add(ANSWER), sending).await,
        None => Ok(sending.await),
    };
    answer.map_err(|_| Failure::Unanswered)?.map_err(Failure::Sql)
}

impl Failure {
    /// What it means to the caller.
    fn explained(self, key: &LockKey, terms: &Terms, rollback_on_timeout: bool) -> LockError {
        let Self::Sql(error) = self else {
            return failed(key, BackendError::transient("mysql did not answer in time"));
        };
        let what = match mysql::number(&error) {
            Some(1205) if rollback_on_timeout => {
                "mysql: the lock stayed busy, and innodb_rollback_on_timeout has rolled the whole transaction back; begin it again"
            }
            // A statement's time limit (MariaDB, MySQL), or a lock wait timeout.
            Some(1969 | 3024 | 1205) => return terms.busy(key),
            Some(1213) => {
                "mysql: deadlock with another transaction; mysql has rolled this whole transaction back, begin it again"
            }
            Some(1146) => {
                "mysql: the table of row locks is missing; call `dlock_runtime::transaction::create_tables(&pool)` when the process starts, or run `sql/mysql/rows.sql` of dlock-runtime"
            }
            Some(1142 | 1044) => {
                "mysql: this user lacks a privilege that `sql/mysql/rows.sql` of dlock-runtime names"
            }
            _ => "mysql",
        };
        let read_only = matches!(mysql::number(&error), Some(1290 | 1792 | 1836));
        let transient = |error: &sqlx::Error| mysql::is_transient(error) && !read_only;
        failed(key, sql::explain(what, error, transient))
    }
}

fn failed(key: &LockKey, source: BackendError) -> LockError {
    LockError::Backend { key: key.clone(), source }
}

fn unreadable(key: &LockKey) -> LockError {
    failed(
        key,
        BackendError::permanent(
            "mysql gave an answer that cannot be read; is the row without a key gone from dlock_rows?",
        ),
    )
}
