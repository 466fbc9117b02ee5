//! Row locks in a MySQL or MariaDB transaction.
//!
//! `SELECT … FOR UPDATE` waits, within a limit of its own: MySQL has `MAX_EXECUTION_TIME` (an optimizer hint, in
//! milliseconds, for `SELECT` only), MariaDB `SET STATEMENT max_statement_time`. Each reads the other's as a comment.
//! `innodb_lock_wait_timeout` counts whole seconds, and may be configured to roll back the whole transaction. The upsert
//! that follows creates the row if there is none; it may wait as well, and computes the inserted values before that. So
//! the token is drawn by a separate update after it: the time of a statement is the time when it begins.
//!
//! Readers lock the row with `LOCK IN SHARE MODE`. They cannot write their token into it: it is the time, or the number
//! after the row's, and writers use every other number. The first reader of a key without a row creates the row, and is
//! alone until its transaction ends.

use std::time::Duration;

use sqlx::mysql::MySqlQueryResult;
use sqlx::{Connection, MySql, MySqlConnection, Row};

use super::dialect as mysql;
use crate::error::{BackendError, LockError};
use crate::key::LockKey;
use crate::stores::shared::sql::store::Dialect as _;
use crate::stores::shared::sql::tables::Table;
use crate::stores::shared::sql::{self, Reply};
use crate::token::FencingToken;
use crate::transaction::answer::{
    self, Failure, LATE, LONGEST_STATEMENT, answer, failed, unanswered,
};
use crate::transaction::sealed::{LockRows, Locking};
use crate::transaction::tables::{RowLockDatabase, sealed, store};
use crate::transaction::{RowLockOptions, Transactional};

/// The least time of a locking statement: its limit includes its own work.
///
/// In milliseconds.
const LEAST: u64 = 30;

/// The time of a locking statement that does not wait, and so only has its own work to do.
///
/// In milliseconds.
const WITHOUT_WAIT: u64 = 400;

/// How often a missing row is inserted without waiting for others that insert it. If several insertions wait for one that
/// is rolled back, InnoDB ends all but one as deadlocks; locking reads can wait for it instead. The number is limited
/// because a gap lock may let nobody insert: that deadlock must be reported.
const TRIES: u32 = 100;

pub(crate) async fn lock_rows(
    connection: &mut MySqlConnection,
    keys: &[LockKey],
    options: RowLockOptions,
) -> Result<Vec<FencingToken>, LockError> {
    let first = &keys[0];
    if !connection.is_in_transaction() {
        return Err(LockError::no_transaction(first));
    }
    let settings = Settings::of(connection, first, &options).await?;
    let reads_afresh = matches!(&*settings.isolation, "READ-COMMITTED" | "READ-UNCOMMITTED");
    if !reads_afresh && !options.any_isolation {
        return Err(LockError::stale_reads(first, &settings.isolation, HOW_TO_BEGIN));
    }
    let mut tokens = Vec::with_capacity(keys.len());
    for key in keys {
        tokens.push(lock_row(connection, key, &options, &settings).await?);
    }
    Ok(tokens)
}

const HOW_TO_BEGIN: &str = "let the pool's connections `SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED` (`after_connect` of its options)";

/// The session's settings.
struct Settings {
    isolation: String,
    /// Does a lock wait timeout roll back the whole transaction, and not only its statement?
    rollback_on_timeout: bool,
    /// Can a statement be set not to wait, and does only the statement end when it would have to?
    may_refuse_to_wait: bool,
}

impl Settings {
    async fn of(
        connection: &mut MySqlConnection,
        key: &LockKey,
        options: &RowLockOptions,
    ) -> Result<Self, LockError> {
        // MariaDB's name for it, and MySQL's.
        let ask = "SELECT /*M! @@tx_isolation */ /*!80000 @@transaction_isolation */, @@innodb_rollback_on_timeout, CAST(/*M! 1 + */ 0 AS SIGNED)";
        let limit = answer::limit(options, Duration::ZERO, LATE);
        let reply = answer::<MySql>(connection, ask.to_owned(), limit).await;
        let reply = reply.map_err(|failure| refusal(failure, key, options, false))?;
        let read = || {
            let row = reply.row()?;
            let rollback_on_timeout = row.try_get::<i64, _>(1).ok()? != 0;
            let is_mariadb = row.try_get::<i64, _>(2).ok()? != 0;
            let may_refuse_to_wait = is_mariadb && !rollback_on_timeout;
            Some(Self { isolation: row.try_get(0).ok()?, rollback_on_timeout, may_refuse_to_wait })
        };
        read().ok_or_else(|| unreadable(key))
    }
}

async fn lock_row(
    connection: &mut MySqlConnection,
    key: &LockKey,
    options: &RowLockOptions,
    settings: &Settings,
) -> Result<FencingToken, LockError> {
    let mut shared = options.is_shared();
    let mut tries = 0;
    loop {
        let wait = options.next_wait(LONGEST_STATEMENT);
        let limits = Limits::new(wait, tries, settings);
        let statements = if shared { reading(key, &limits) } else { writing(key, &limits) };
        tries += 1;
        let limit = answer::limit(options, wait, LATE);
        let reply = match answer::<MySql>(connection, statements, limit).await {
            Ok(reply) => reply,
            // The statement's limit came before that of the call. At the end of the wait, a try without a wait
            // tells whether the key is held, or the server is slow.
            Err(Failure::Sql(error))
                if is_limit(&error, settings)
                    && (!options.is_over() || is_slow(&error, settings) && !wait.is_zero()) =>
            {
                continue;
            }
            Err(Failure::Sql(error)) if is_slow(&error, settings) => {
                let what = "mysql: no answer in time on whether the lock is free";
                return Err(failed(key, sql::explain(what, error, MySql::is_transient)));
            }
            Err(failure) => {
                return Err(refusal(failure, key, options, settings.rollback_on_timeout));
            }
        };
        let Looked { locked, plain, now } = Looked::of(&reply).ok_or_else(|| unreadable(key))?;
        if locked.is_some() && plain != locked && !options.any_isolation {
            return Err(LockError::stale_reads(
                key,
                "a snapshot older than the lock",
                HOW_TO_BEGIN,
            ));
        }
        if shared {
            let Some(token) = locked else {
                shared = false;
                continue;
            };
            // The row does not contain the token of a writer that was rolled back.
            return Ok(FencingToken::new(now.max(token + 1)));
        }
        return match reply.last().map(MySqlQueryResult::last_insert_id) {
            Some(token) if token > 0 => Ok(FencingToken::new(token)),
            _ => Err(unreadable(key)),
        };
    }
}

/// Did a limit of the statement end it, and only the statement?
fn is_limit(error: &sqlx::Error, settings: &Settings) -> bool {
    match mysql::number(error) {
        Some(1969 | 3024) => true,
        Some(1205) => !settings.rollback_on_timeout,
        _ => false,
    }
}

/// Was it the limit of the statement's time, although a wait has a limit of its own?
fn is_slow(error: &sqlx::Error, settings: &Settings) -> bool {
    settings.may_refuse_to_wait && mysql::number(error) == Some(1969)
}

/// What the last holder left in the row, as the locking read and as a plain read sees it, and the time after the lock
/// was acquired.
struct Looked {
    locked: Option<u64>,
    plain: Option<u64>,
    now: u64,
}

impl Looked {
    fn of(reply: &Reply<MySql>) -> Option<Self> {
        let locked = match reply.rows.first()?.first() {
            Some(row) => Some(row.try_get(0).ok()?),
            None => None,
        };
        let afterwards = reply.rows.get(1)?.first()?;
        let now = afterwards.try_get::<i64, _>(1).ok()?.unsigned_abs();
        Some(Self { locked, plain: afterwards.try_get(0).ok()?, now })
    }
}

/// The locking read, and a plain read of the same row.
fn reading(key: &LockKey, limits: &Limits) -> String {
    look(key, limits, "LOCK IN SHARE MODE")
}

fn writing(key: &LockKey, limits: &Limits) -> String {
    let look = look(key, limits, "FOR UPDATE");
    let (inserting, updating) = (limits.around(limits.insertion), limits.around(limits.read));
    let key = mysql::bytes(key.as_str().as_bytes());
    let now = mysql::NOW_MICROS;
    format!(
        "{look}; \
         {inserting} INSERT INTO dlock_rows (lock_key, token, used_at) \
         SELECT {key}, floor.token, UTC_TIMESTAMP(6) FROM dlock_rows AS floor WHERE floor.lock_key = '' \
         ON DUPLICATE KEY UPDATE token = dlock_rows.token; \
         {updating} UPDATE dlock_rows SET token = LAST_INSERT_ID(GREATEST({now}, token + 2)), used_at = UTC_TIMESTAMP(6) \
         WHERE lock_key = {key}"
    )
}

fn look(key: &LockKey, limits: &Limits, strength: &str) -> String {
    let (limited, millis) = (limits.around(limits.read), limits.each);
    let key = mysql::bytes(key.as_str().as_bytes());
    let now = mysql::NOW_MICROS;
    format!(
        "{limited} SELECT /*+ MAX_EXECUTION_TIME({millis}) */ token FROM dlock_rows WHERE lock_key = {key} {strength}; \
         SELECT (SELECT token FROM dlock_rows WHERE lock_key = {key}), {now}"
    )
}

/// The limits of the statements of one message.
struct Limits {
    /// How long each of them may take, in milliseconds.
    each: u64,
    /// How long a read and an insertion wait for a lock, in seconds; zero means no wait.
    read: u64,
    insertion: u64,
}

impl Limits {
    fn new(wait: Duration, tries: u32, settings: &Settings) -> Self {
        if wait.is_zero() && settings.may_refuse_to_wait {
            return Self { each: WITHOUT_WAIT, read: 0, insertion: 0 };
        }
        let each = answer::millis(wait).clamp(LEAST, u64::from(u32::MAX));
        let read = each / 1000 + 1;
        let refuses = settings.may_refuse_to_wait && tries < TRIES;
        Self { each, read, insertion: if refuses { 0 } else { read } }
    }

    /// The prefix that limits a statement of MariaDB.
    fn around(&self, lock_wait: u64) -> String {
        format!(
            "/*M! SET STATEMENT max_statement_time = {}.{:03}, innodb_lock_wait_timeout = {lock_wait} FOR */",
            self.each / 1000,
            self.each % 1000,
        )
    }
}

/// The caller's error for a failure of a locking statement.
fn refusal(
    failure: Failure,
    key: &LockKey,
    options: &RowLockOptions,
    rollback_on_timeout: bool,
) -> LockError {
    let Failure::Sql(error) = failure else { return unanswered("mysql", key) };
    let what = match mysql::number(&error) {
        Some(1205) if rollback_on_timeout => {
            "mysql: the lock stayed busy, and innodb_rollback_on_timeout has rolled back the whole transaction; begin it again"
        }
        // A statement's time limit (MariaDB, MySQL), or a lock wait timeout.
        Some(1969 | 3024 | 1205) => return options.busy(key),
        Some(1213) => {
            "mysql: deadlock with another transaction; mysql has rolled back this whole transaction; begin it again"
        }
        Some(1146) => {
            "mysql: the table of row locks is missing; call `dlock_runtime::transaction::create_tables(&pool)` when the process starts, or run `src/stores/mysql/rows.sql` of dlock-runtime"
        }
        Some(1142 | 1044) => {
            "mysql: this user lacks a privilege that `src/stores/mysql/rows.sql` of dlock-runtime lists"
        }
        _ => "mysql",
    };
    let read_only = matches!(mysql::number(&error), Some(1290 | 1792 | 1836));
    let transient = |error: &sqlx::Error| MySql::is_transient(error) && !read_only;
    failed(key, sql::explain(what, error, transient))
}

fn unreadable(key: &LockKey) -> LockError {
    failed(
        key,
        BackendError::permanent(
            "mysql sent an answer that cannot be read; is the row without a key gone from dlock_rows?",
        ),
    )
}

impl LockRows for sqlx::MySqlConnection {
    fn lock_rows<'a>(&'a mut self, keys: &'a [LockKey], options: RowLockOptions) -> Locking<'a> {
        Box::pin(lock_rows(self, keys, options))
    }
}

impl Transactional for sqlx::MySqlConnection {}

impl RowLockDatabase for sqlx::MySql {}

impl sealed::Tables for sqlx::MySql {
    async fn create(pool: sqlx::Pool<Self>) -> Result<(), BackendError> {
        let table = Table {
            name: "dlock_rows",
            file: "src/stores/mysql/rows.sql",
            statements: include_str!("rows.sql").to_owned(),
            probe: "SELECT used_at FROM dlock_rows WHERE lock_key = ''".to_owned(),
        };
        table.ensure(&store(pool)).await
    }
}
