//! Answers that come in time, or not at all.
//!
//! What waits for a lock is bounded twice. The database ends the statement itself, so that a client that gives
//! up or dies leaves nothing there that waits on. And the answer is awaited only so long, so that a database
//! that hangs is an error, and not a wait without an end.

use std::time::Duration;

use sqlx::{Database, Executor};

use super::RowLockOptions;
use crate::error::{BackendError, LockError};
use crate::key::LockKey;
use crate::stores::shared::sql::{self, Reply};

/// How long a statement waits for a lock at most. A longer wait is several statements: one that was abandoned
/// occupies its connection no longer than this.
pub(crate) const LONGEST_STATEMENT: Duration = Duration::from_secs(5);

/// How much longer than its own limit the answer to a statement may take, while there is time for it.
const ANSWER: Duration = Duration::from_secs(5);

/// How much later than the end of the wait the answer may come.
pub(crate) const LATE: Duration = Duration::from_millis(600);

/// The same for what brings the transaction back into order. A call ends within a second after its wait.
#[cfg(feature = "postgres")]
pub(crate) const LATEST: Duration = Duration::from_millis(900);

/// Why there is no answer.
pub(crate) enum Failure {
    Sql(sqlx::Error),
    /// Whatever was sent may be done yet, and the connection hears of it before anything else.
    Unanswered,
}

/// Sends statements in one message, and awaits the answer for so long.
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

/// How long the answer may take to a statement that the database ends after `statement`.
pub(crate) fn limit(terms: &RowLockOptions, statement: Duration, late: Duration) -> Duration {
    let limit = statement.saturating_add(ANSWER);
    terms.left_with(late).map_or(limit, |left| left.min(limit))
}

/// What the caller hears when there was no answer.
pub(crate) fn unanswered(kind: &str, key: &LockKey) -> LockError {
    let told = format!(
        "{kind} did not answer in time; whether the lock is held is unknown, so roll this transaction back"
    );
    failed(key, BackendError::transient(told))
}

/// The error of this key.
pub(crate) fn failed(key: &LockKey, source: BackendError) -> LockError {
    LockError::Backend { key: key.clone(), source }
}

/// In whole milliseconds, as the databases count: never less.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}
