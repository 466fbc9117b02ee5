//! What the SQL backends and the row locks in a caller's transaction share.
//!
//! Every statement is sent as text in one message (the *simple query* protocol of PostgreSQL, `COM_QUERY` of MySQL):
//! one round trip. Values are written as hexadecimal digits, so that nothing needs quoting.

use std::fmt::Write as _;

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, ColumnIndex, Database, Decode, Either, Executor, Row, Type};

use self::store::{Dialect, failure};
use crate::error::BackendError;
use crate::lock_table::record::Micros;

pub(crate) mod kept;
pub(crate) mod poll;
#[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only PostgreSQL prepares them"))]
pub(crate) mod prepared;
pub(crate) mod store;
pub(crate) mod tables;
pub(crate) mod url;

/// The server's answer to one message.
#[derive(Debug)]
pub(crate) struct Reply<DB: Database> {
    /// The rows of each statement, in the statements' order.
    pub(crate) rows: Vec<Vec<DB::Row>>,
    /// The result of each statement.
    pub(crate) results: Vec<DB::QueryResult>,
}

impl<DB: Database> Reply<DB> {
    /// The first row of the first statement.
    pub(crate) fn row(&self) -> Option<&DB::Row> {
        self.rows.first()?.first()
    }

    /// The result of the last statement.
    #[cfg(feature = "mysql")]
    pub(crate) fn last(&self) -> Option<&DB::QueryResult> {
        self.results.last()
    }
}

/// Sends statements in one message and reads the answer to its end: a row proves nothing before the commit behind
/// it.
pub(crate) async fn send<DB>(
    connection: &mut DB::Connection,
    statements: String,
) -> Result<Reply<DB>, sqlx::Error>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let mut reply = Reply { rows: vec![], results: vec![] };
    let mut rows = vec![];
    {
        let mut answers = connection.fetch_many(sqlx::raw_sql(AssertSqlSafe(statements)));
        while let Some(answer) = answers.try_next().await? {
            match answer {
                Either::Right(row) => rows.push(row),
                Either::Left(result) => {
                    reply.rows.push(std::mem::take(&mut rows));
                    reply.results.push(result);
                }
            }
        }
    }
    Ok(reply)
}

/// A column of a row.
pub(crate) fn read<'r, T, R>(row: &'r R, column: usize) -> Result<T, BackendError>
where
    R: Row<Database: Dialect>,
    T: Decode<'r, R::Database> + Type<R::Database>,
    usize: ColumnIndex<R>,
{
    row.try_get(column).map_err(failure::<R::Database>)
}

/// A column with a time or a token that the database stores as a signed number; a negative one is read as zero.
pub(crate) fn read_micros<'r, R>(row: &'r R, column: usize) -> Result<Micros, BackendError>
where
    R: Row<Database: Dialect>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    usize: ColumnIndex<R>,
{
    Ok(u64::try_from(read::<i64, R>(row, column)?).unwrap_or(0))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a `String` does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// An error that says `what`, followed by the server's own words.
pub(crate) fn explain(
    what: &str,
    error: sqlx::Error,
    is_transient: impl FnOnce(&sqlx::Error) -> bool,
) -> BackendError {
    let message = format!("{what}: {}", describe(&error));
    let explained = if is_transient(&error) {
        BackendError::transient(message)
    } else {
        BackendError::permanent(message)
    };
    explained.with_source(error)
}

/// The server's own message if there is one.
fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::PoolTimedOut => {
            "timed out waiting for a connection: the server does not answer, or all connections of the pool are in use".to_owned()
        }
        other => other.to_string(),
    }
}

/// Did the connection break, rather than the statement fail?
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    use sqlx::Error;
    matches!(error, Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed)
}

/// Was there no connection to send anything on?
pub(crate) fn is_unsent(error: &sqlx::Error) -> bool {
    use sqlx::Error;
    matches!(error, Error::PoolTimedOut | Error::PoolClosed | Error::Configuration(_))
}
