//! Opens a file: its URL, its tables and their version, and what SQLite's errors mean.

use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use crate::error::BackendError;

/// How long a statement waits for another process's write. Then it fails, and the engine retries it.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) fn options(url: &str) -> Result<SqliteConnectOptions, BackendError> {
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
pub(super) enum Refused {
    OtherVersion(i64),
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) async fn open(
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

pub(super) fn other_version(path: &str, version: i64) -> BackendError {
    let problem = format!(
        "sqlite file {path}: its tables have version {version}, but this version of dlock uses version {VERSION}; update the older services, or give each version its own file"
    );
    BackendError::permanent(problem).not_sent()
}

pub(super) fn explain(path: &str, error: sqlx::Error) -> BackendError {
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
pub(super) fn is_contention(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}
