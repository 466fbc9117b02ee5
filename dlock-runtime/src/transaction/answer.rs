//! Time limits for the statements of row locks.
//!
//! A wait for a lock has two limits. The database itself ends the statement, so that a client that gives up or
//! dies leaves no waiting statement behind. The client stops waiting for the answer after a while, so that a
//! database that hangs becomes an error rather than an endless wait.

use std::time::Duration;

use sqlx::{Database, Executor};

use super::RowLockOptions;
use crate::error::{BackendError, LockError};
use crate::key::LockKey;
use crate::stores::shared::sql::{self, Reply};

/// The longest time that one statement waits for a lock. A longer wait takes several statements, so that an
/// abandoned one occupies its connection no longer than this.
pub(crate) const LONGEST_STATEMENT: Duration = Duration::from_secs(5);

/// How much longer than the statement's own limit its answer may take, while the wait is not over.
const ANSWER: Duration = Duration::from_secs(5);

/// How long after the end of the wait the answer may arrive.
pub(crate) const LATE: Duration = Duration::from_millis(600);

/// The same for the statements that restore the transaction. A call returns within a second after its wait.
#[cfg(feature = "postgres")]
pub(crate) const LATEST: Duration = Duration::from_millis(900);

/// Why there is no answer.
pub(crate) enum Failure {
    Sql(sqlx::Error),
    /// The statements may still be executed, and the connection receives their answer before any other.
    Unanswered,
}

/// Sends statements in one message and waits for the answer, up to the limit.
pub(crate) async fn answer<DB>(
    connection: &mut DB::Connection,
    statements: String,
    limit: Duration,
) -> Result<Reply<DB>, Failure>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let sending = sql::send::<DB>(connection, statements);
    let answer = tokio::time::timeout(limit, sending).await;
    answer.map_err(|_| Failure::Unanswered)?.map_err(Failure::Sql)
}

/// How long to wait for the answer to a statement that the database ends after `statement`.
pub(crate) fn limit(options: &RowLockOptions, statement: Duration, late: Duration) -> Duration {
    let limit = statement.saturating_add(ANSWER);
    options.left_with(late).map_or(limit, |left| left.min(limit))
}

/// The error for a caller whose statement was not answered.
pub(crate) fn unanswered(kind: &str, key: &LockKey) -> LockError {
    let message = format!(
        "{kind} did not answer in time; whether the lock is held is unknown, so roll this transaction back"
    );
    failed(key, BackendError::transient(message))
}

/// The error of this key.
pub(crate) fn failed(key: &LockKey, source: BackendError) -> LockError {
    LockError::Backend { key: key.clone(), source }
}

/// Converts to whole milliseconds, the databases' unit, rounded up.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}
