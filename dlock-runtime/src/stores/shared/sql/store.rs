//! A pool of connections as the lease backends use it: every request is bounded in time, and no connection returns to
//! the pool while anything of a request is left on it.

use std::time::Duration;

use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::{Connection, Database, Pool};

use super::{Reply, explain, is_broken, is_unsent};
use crate::backoff::Backoff;
use crate::error::BackendError;
use crate::stores::shared::doubt::Doubt;

/// How often a statement that the server undid is sent again before the caller gets the error.
const REPEATS: u32 = 10;

/// How long an answer may take by default.
pub(crate) const DEFAULT_LIMIT: Duration = Duration::from_secs(5);

/// The same at most: unused rows are kept for longer than any statement can be in flight.
pub(crate) const LONGEST_LIMIT: Duration = Duration::from_secs(30);

/// How many connections our own pool opens at most by default.
pub(crate) const DEFAULT_CONNECTIONS: u32 = 10;

/// How a database takes statements, and what its errors mean.
pub(crate) trait Dialect: Database {
    const KIND: &'static str;

    /// Does [`bounded`](Self::bounded) put a statement of its own before the others?
    const BOUND_IS_A_STATEMENT: bool;

    /// [`send`](super::send). It is here because generic code cannot say that every connection is an executor.
    fn send(
        connection: &mut Self::Connection,
        statements: String,
    ) -> impl Future<Output = Result<Reply<Self>, sqlx::Error>> + Send;

    /// The statements, which the server itself ends when they take longer than `limit`, or wait longer than that for
    /// a row: their sender may be gone. They leave no setting on the connection.
    fn bounded(statements: &str, limit: Duration) -> String;

    /// Did the server undo the statement because of another transaction or a time limit of its own, so that it can be
    /// sent again at once?
    fn is_undone(error: &sqlx::Error) -> bool;

    /// Is a number too large?
    #[cfg(feature = "mysql")]
    fn is_out_of_range(error: &sqlx::Error) -> bool;

    /// Is the connection of no more use: the server is shutting down, or has become a replica?
    fn is_leaving(error: &sqlx::Error) -> bool;

    /// Is it a failure of the server that passes, such as a lack of connections?
    fn is_passing(error: &sqlx::Error) -> bool;

    /// Is the table missing, or an older one?
    fn is_table_missing(error: &sqlx::Error) -> bool;

    /// Does this role lack a privilege?
    fn is_forbidden(error: &sqlx::Error) -> bool;

    /// May the same statement succeed a little later?
    fn is_transient(error: &sqlx::Error) -> bool {
        Self::is_undone(error)
            || Self::is_leaving(error)
            || Self::is_passing(error)
            || is_broken(error)
            || matches!(error, sqlx::Error::PoolTimedOut)
    }
}

/// A pool, and how long an answer may take.
pub(crate) struct Store<DB: Database> {
    pub(crate) pool: Pool<DB>,
    pub(crate) limit: Duration,
}

impl<DB: Dialect> Store<DB> {
    /// Sends statements in one message.
    pub(crate) async fn run(&self, statements: String) -> Result<Reply<DB>, BackendError> {
        self.try_run(&statements).await.map_err(failure::<DB>)
    }

    /// Like [`run`](Self::run), with the unchanged error.
    pub(crate) async fn try_run(&self, statements: &str) -> Result<Reply<DB>, sqlx::Error> {
        self.in_time(self.send(None, statements, 0, None)).await
    }

    /// Sends statements, first over `first` if there is one. If they are sent again over another connection, `doubt`
    /// notes it.
    pub(crate) async fn send(
        &self,
        first: Option<PoolConnection<DB>>,
        statements: &str,
        spare: u32,
        doubt: Option<&Doubt>,
    ) -> Result<Reply<DB>, sqlx::Error> {
        let mut first = first;
        let mut spare = spare;
        let mut repeats = REPEATS;
        let mut pauses = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
        loop {
            let connection = match first.take() {
                Some(connection) => connection,
                None => self.pool.acquire().await?,
            };
            let mut connection = Checkout::new(connection);
            match DB::send(connection.get(), statements.to_owned()).await {
                Ok(reply) => {
                    connection.give_back();
                    return Ok(reply);
                }
                Err(error) if is_broken(&error) || DB::is_leaving(&error) => {
                    drop(connection);
                    spare = spare.checked_sub(1).ok_or(error)?;
                    if let Some(doubt) = doubt {
                        doubt.note();
                    }
                }
                Err(error) => {
                    connection.give_back();
                    if !DB::is_undone(&error) || repeats == 0 {
                        return Err(error);
                    }
                    repeats -= 1;
                    tokio::time::sleep(pauses.pause()).await;
                }
            }
        }
    }

    /// Awaits work on the pool for at most the limit.
    pub(crate) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let limit = self.limit;
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            let problem = format!("no answer within {limit:?}");
            Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, problem)))
        })
    }
}

/// Opens a pool of our own.
pub(crate) async fn connect<DB: Dialect>(
    options: <DB::Connection as Connection>::Options,
    address: &str,
    connections: u32,
    limit: Duration,
) -> Result<Pool<DB>, BackendError> {
    // First a single connection: a pool would hide why it cannot connect.
    let first = tokio::time::timeout(limit, DB::Connection::connect_with(&options)).await;
    let first = first.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    let unreachable = |error| {
        let what = format!("{} at {address} could not be used", DB::KIND);
        explain(&what, error, DB::is_transient).not_sent()
    };
    drop(first.map_err(unreachable)?);
    Ok(PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(limit)
        // A broken connection is noticed when it is used, and the request is sent again.
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// The error as the engine classifies it.
pub(crate) fn failure<DB: Dialect>(error: sqlx::Error) -> BackendError {
    let never_executed = is_unsent(&error) || DB::is_undone(&error);
    let failure = explain(DB::KIND, error, DB::is_transient);
    if never_executed { failure.not_sent() } else { failure }
}

/// A connection from the pool. It is closed unless it is given back: a request that was dropped half-way, or failed
/// below the protocol, leaves the connection in an unknown state.
pub(crate) struct Checkout<DB: Database>(Option<PoolConnection<DB>>);

impl<DB: Database> Checkout<DB> {
    pub(crate) fn new(connection: PoolConnection<DB>) -> Self {
        Self(Some(connection))
    }

    pub(crate) fn get(&mut self) -> &mut DB::Connection {
        self.0.as_mut().expect("the connection is only taken out at the end")
    }

    pub(crate) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl<DB: Database> Drop for Checkout<DB> {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            // At once, without a goodbye to a server that may not answer.
            drop(connection.detach());
        }
    }
}
