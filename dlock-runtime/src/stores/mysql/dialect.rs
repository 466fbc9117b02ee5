//! The literals and error numbers of MySQL and MariaDB.

use std::time::Duration;

use sqlx::mysql::MySqlDatabaseError;

use crate::stores::shared::sql::kept::Ready;
use crate::stores::shared::sql::prepared::{Call, Prepared};
use crate::stores::shared::sql::store::Dialect;
use crate::stores::shared::sql::{self, Reply, hex};

/// A literal of exactly these bytes.
pub(crate) fn bytes(value: &[u8]) -> String {
    format!("x'{}'", hex(value))
}

/// The present time in microseconds since 1970, in UTC, so that daylight saving time does not affect it.
pub(crate) const NOW_MICROS: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";

/// The error's number; see the server error references of MySQL and MariaDB.
pub(crate) fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

/// A statement that takes no longer than `limit`, and waits for each row no longer than `wait`, in whole seconds. MariaDB
/// has `SET STATEMENT`, and MySQL has hints behind the verb; each reads the other's as a comment. Neither leaves a
/// setting in the session.
pub(super) fn bounded(statement: &str, limit: Duration, wait: Duration) -> String {
    let millis = limit.as_millis().max(1);
    let seconds = wait.as_millis().max(1).div_ceil(1_000);
    let (verb, rest) = statement.split_once(' ').unwrap_or((statement, ""));
    let hint = match verb {
        "SELECT" => format!("MAX_EXECUTION_TIME({millis})"),
        _ => format!("SET_VAR(innodb_lock_wait_timeout={seconds})"),
    };
    format!(
        "/*M! SET STATEMENT max_statement_time = {}.{:03}, innodb_lock_wait_timeout = {seconds} FOR */ {verb} /*+ {hint} */ {rest}",
        millis / 1_000,
        millis % 1_000,
    )
}

impl Dialect for sqlx::MySql {
    const KIND: &'static str = "mysql";
    const BOUND_IS_A_STATEMENT: bool = false;

    async fn send(
        connection: &mut Self::Connection,
        statements: String,
    ) -> Result<Reply<Self>, sqlx::Error> {
        sql::send::<Self>(connection, statements).await
    }

    fn bounded(statement: &str, limit: Duration) -> String {
        bounded(statement, limit, limit)
    }

    /// Nothing is prepared.
    fn call(call: &Call<'_>, _: Ready, limit: Duration, wait: Option<Duration>) -> (String, usize) {
        (bounded(&call.in_one(), limit, wait.unwrap_or(limit)), 0)
    }

    fn prepare(_: &[Prepared], _: Duration) -> (String, usize) {
        (String::new(), 0)
    }

    fn is_unprepared(_: &sqlx::Error) -> bool {
        false
    }

    fn is_rolled_back(error: &sqlx::Error) -> bool {
        // lock wait timeout, deadlock, query interrupted, statement time limit (MariaDB, MySQL), row
        // changed since it was read (MariaDB), rolled back by another member of the group (MySQL)
        matches!(number(error), Some(1205 | 1213 | 1317 | 1969 | 3024 | 1020 | 3101))
    }

    fn is_conflict(error: &sqlx::Error) -> bool {
        // deadlock, row changed since it was read (MariaDB), rolled back by another member of the group (MySQL)
        matches!(number(error), Some(1213 | 1020 | 3101))
    }

    /// Nothing says so about any other error.
    fn is_undone(error: &sqlx::Error) -> bool {
        let never_began = Self::is_table_missing(error) || Self::is_permission_denied(error);
        // raised by a trigger
        Self::is_rolled_back(error) || never_began || number(error) == Some(1644)
    }

    fn is_out_of_range(error: &sqlx::Error) -> bool {
        // value is out of range
        number(error) == Some(1690)
    }

    fn is_unusable(error: &sqlx::Error) -> bool {
        // server shutdown, connection killed, read-only option, read-only transaction; idle for too long (MySQL),
        // not a member of its cluster at present (Galera)
        matches!(number(error), Some(1053 | 1927 | 1290 | 1792 | 1836 | 4031 | 1047))
    }

    fn is_temporary(error: &sqlx::Error) -> bool {
        // too many connections (of all, of this user), out of resources
        matches!(number(error), Some(1040 | 1203 | 1226 | 1041))
    }

    fn is_table_missing(error: &sqlx::Error) -> bool {
        matches!(number(error), Some(1146 | 1054))
    }

    fn is_permission_denied(error: &sqlx::Error) -> bool {
        matches!(number(error), Some(1142 | 1044 | 1045 | 1227))
    }
}
