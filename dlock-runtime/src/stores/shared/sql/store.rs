//! The connections of a lease backend. Every request has a timeout, and no connection is used again
//! while a request on it is unfinished.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::{Connection, Database, Pool};

use super::kept::{Connections, Link, Ready};
use super::prepared::{Call, Prepared};
use super::{Reply, explain, is_broken, is_unsent};
use crate::backoff::Backoff;
use crate::error::BackendError;
use crate::stores::shared::doubt::Doubt;

/// How often a statement that the server rolled back is retried before the caller gets the error.
pub(crate) const REPEATS: u32 = 10;

/// The default timeout of a request.
pub(crate) const DEFAULT_LIMIT: Duration = Duration::from_secs(5);

/// The longest timeout of a request. Unused rows are kept for longer than any statement can run.
pub(crate) const LONGEST_LIMIT: Duration = Duration::from_secs(30);

/// The default maximum of connections in a pool that dlock opens.
pub(crate) const DEFAULT_CONNECTIONS: u32 = 10;

/// What differs between databases: how to bound statements, and what their errors mean.
pub(crate) trait Dialect: Database {
    const KIND: &'static str;

    /// Whether [`bounded`](Self::bounded) puts a statement of its own before the others.
    const BOUND_IS_A_STATEMENT: bool;

    /// Calls [`send`](super::send). A method, because generic code cannot require that a reference to a connection is
    /// an executor for every lifetime without repeating that bound everywhere.
    fn send(
        connection: &mut Self::Connection,
        statements: String,
    ) -> impl Future<Output = Result<Reply<Self>, sqlx::Error>> + Send;

    /// Makes the server itself end the statements when they run, or wait for a row, longer than `limit`, because their
    /// sender may be gone. Leaves no setting behind on the connection.
    fn bounded(statements: &str, limit: Duration) -> String;

    /// Options with which a connection has the settings for prepared statements from the beginning, if there are any.
    /// A proxy may refuse or ignore them.
    fn with_settings(
        options: &<Self::Connection as Connection>::Options,
    ) -> Option<<Self::Connection as Connection>::Options> {
        let _ = options;
        None
    }

    /// Does the answer to [`prepare`](Self::prepare) say that the connection has these settings?
    fn has_settings(reply: &Reply<Self>) -> bool {
        let _ = reply;
        false
    }

    /// The message that executes a prepared statement, or the whole statement on a connection that is not ready for
    /// that, and how many results come before its own. The statement is bounded as by [`bounded`](Self::bounded). With
    /// `wait`, it waits no longer than that for any row.
    fn call(
        call: &Call<'_>,
        ready: Ready,
        limit: Duration,
        wait: Option<Duration>,
    ) -> (String, usize);

    /// The message that prepares these statements, and how many results come before theirs. It is bounded as well:
    /// preparing a statement waits for its table.
    fn prepare(statements: &[Prepared], limit: Duration) -> (String, usize);

    /// Has the connection lost its prepared statements, or does the server not have them as we use them?
    fn is_unprepared(error: &sqlx::Error) -> bool;

    /// Did the server roll the statement back because of another transaction or a time limit? Then it can be retried
    /// at once.
    fn is_rolled_back(error: &sqlx::Error) -> bool;

    /// Did it roll the statement back because of a conflict with another transaction, without waiting?
    fn is_conflict(error: &sqlx::Error) -> bool;

    /// Has a statement that ended with this error certainly changed nothing? An error at its commit may leave that open.
    fn is_undone(error: &sqlx::Error) -> bool;

    /// Is a number too large?
    #[cfg(feature = "mysql")]
    fn is_out_of_range(error: &sqlx::Error) -> bool;

    /// Is the connection no longer usable, because the server is shutting down or has become a replica?
    fn is_unusable(error: &sqlx::Error) -> bool;

    /// Is it a temporary failure of the server, such as a lack of connections?
    fn is_temporary(error: &sqlx::Error) -> bool;

    /// Is the table, or one of its columns, missing?
    fn is_table_missing(error: &sqlx::Error) -> bool;

    /// Does the role lack a privilege?
    fn is_permission_denied(error: &sqlx::Error) -> bool;

    /// May the same statement succeed a little later?
    fn is_transient(error: &sqlx::Error) -> bool {
        Self::is_rolled_back(error)
            || Self::is_unusable(error)
            || Self::is_temporary(error)
            || is_broken(error)
            || matches!(error, sqlx::Error::PoolTimedOut)
    }
}

/// A pool's connections, and the timeout of a request.
pub(crate) struct Store<DB: Database> {
    pub(crate) connections: Connections<DB>,
    pub(crate) limit: Duration,
    /// What is prepared on each connection that is kept.
    pub(crate) prepared: Arc<[Prepared]>,
    /// Something between us and the server gives each transaction another connection.
    loses_prepared: AtomicBool,
}

/// What is sent.
#[derive(Clone, Copy)]
pub(crate) enum Message<'a> {
    /// Statements as they are, with at least this many results.
    Statements(&'a str, usize),
    /// The same for statements that wait for no row for long. Each of them is a transaction of its own: nothing stays
    /// locked if one of them fails.
    #[cfg(feature = "mysql")]
    Brief(&'a str, usize),
    /// A statement that is prepared where that is possible.
    Call {
        call: &'a Call<'a>,
        /// How long it may wait for a row.
        wait: Option<Duration>,
    },
}

/// How often a message may be sent.
#[derive(Clone, Copy)]
pub(crate) struct Tries<'a> {
    /// How many connections may turn out to be broken.
    pub(crate) spare: u32,
    /// How often the server may roll it back.
    pub(crate) repeats: u32,
    /// Notes that it was sent over another connection.
    pub(crate) doubt: Option<&'a Doubt>,
}

impl Message<'_> {
    /// Has it a limit of its own for rows that somebody keeps locked?
    fn waits_briefly(&self) -> bool {
        match self {
            Self::Statements(..) => false,
            #[cfg(feature = "mysql")]
            Self::Brief(..) => true,
            Self::Call { wait, .. } => wait.is_some(),
        }
    }
}

impl Tries<'_> {
    /// Over one connection.
    pub(crate) const ONCE: Self = Self { spare: 0, repeats: REPEATS, doubt: None };
}

impl<DB: Dialect> Store<DB> {
    /// A store over a pool that others use as well.
    pub(crate) fn shared(pool: Pool<DB>, limit: Duration) -> Self {
        Self::new(Connections::Shared(pool), limit)
    }

    pub(crate) fn new(connections: Connections<DB>, limit: Duration) -> Self {
        Self {
            connections,
            limit,
            prepared: Arc::default(),
            loses_prepared: AtomicBool::new(false),
        }
    }

    /// Sends statements in one message.
    pub(crate) async fn run(&self, statements: String) -> Result<Reply<DB>, BackendError> {
        self.try_run(&statements).await.map_err(failure::<DB>)
    }

    /// Like [`run`](Self::run), with sqlx's own error.
    pub(crate) async fn try_run(&self, statements: &str) -> Result<Reply<DB>, sqlx::Error> {
        self.in_time(self.send(None, Message::Statements(statements, 0), Tries::ONCE)).await
    }

    /// Sends a message over `first`, or over another connection. If the connection breaks, sends it over another one,
    /// and notes that in the doubt.
    ///
    /// A reply with fewer results than there must be is not the answer to this message, so the connection counts as
    /// broken. PgBouncer can assign a connection on which it has just sent `DISCARD ALL`, if a notification arrives
    /// before the answer to that. The client then gets that answer, which would look like a "no".
    pub(crate) async fn send(
        &self,
        first: Option<Link<DB>>,
        message: Message<'_>,
        tries: Tries<'_>,
    ) -> Result<Reply<DB>, sqlx::Error> {
        let Tries { mut spare, mut repeats, doubt } = tries;
        let mut first = first;
        let mut in_one = !self.prepares();
        let mut pauses = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
        loop {
            let mut link = match first.take() {
                Some(link) => link,
                None => self.connections.take().await?,
            };
            let is_call = matches!(message, Message::Call { .. });
            let is_preparing = is_call && !in_one && !link.is_new() && !link.is_prepared();
            match self.try_send(&mut link, message, in_one).await {
                Ok(reply) => {
                    link.give_back();
                    return Ok(reply);
                }
                Err(error) if is_broken(&error) || DB::is_unusable(&error) => {
                    drop(link);
                    spare = spare.checked_sub(1).ok_or(error)?;
                    if let Some(doubt) = doubt {
                        doubt.note();
                    }
                }
                // The server did not execute it. One of the statements may be about a table that is gone, and another one
                // be useful without it.
                Err(error)
                    if !in_one && DB::is_unprepared(&error)
                        || is_preparing && DB::is_table_missing(&error) =>
                {
                    self.note_unprepared(&error);
                    in_one = true;
                    // Some of the statements may be prepared on it.
                    if link.is_prepared() {
                        first = Some(link);
                    }
                }
                Err(error) => {
                    if is_call && !in_one && !link.is_prepared() {
                        // Some of the statements may be prepared on it.
                        drop(link);
                    } else {
                        link.give_back();
                    }
                    let is_repeated = if message.waits_briefly() {
                        DB::is_conflict(&error)
                    } else {
                        DB::is_rolled_back(&error)
                    };
                    if !is_repeated || repeats == 0 {
                        return Err(error);
                    }
                    repeats -= 1;
                    tokio::time::sleep(pauses.pause()).await;
                }
            }
        }
    }

    async fn try_send(
        &self,
        link: &mut Link<DB>,
        message: Message<'_>,
        in_one: bool,
    ) -> Result<Reply<DB>, sqlx::Error> {
        let (call, wait) = match message {
            Message::Statements(statements, least) => {
                let reply = DB::send(link.get(), statements.to_owned()).await?;
                return complete(reply, least);
            }
            #[cfg(feature = "mysql")]
            Message::Brief(statements, least) => {
                let reply = DB::send(link.get(), statements.to_owned()).await?;
                return complete(reply, least);
            }
            Message::Call { call, wait } => (call, wait),
        };
        // Preparing costs more than one statement sent whole.
        let in_one = in_one || link.is_new();
        if !in_one && !link.is_prepared() {
            let (prepare, before) = DB::prepare(&self.prepared, self.limit);
            let reply = DB::send(link.get(), prepare).await?;
            let reply = complete(reply, before + self.prepared.len())?;
            let is_set = DB::has_settings(&reply);
            link.set_ready(if is_set { Ready::PreparedAndSet } else { Ready::Prepared });
        }
        let ready = if in_one { Ready::Not } else { link.ready() };
        let (text, before) = DB::call(call, ready, self.limit, wait);
        let mut reply = complete(DB::send(link.get(), text).await?, before + 1)?;
        reply.rows.drain(..before);
        Ok(reply)
    }

    fn prepares(&self) -> bool {
        self.connections.are_kept()
            && !self.prepared.is_empty()
            && !self.loses_prepared.load(Ordering::Relaxed)
    }

    /// From now on, whole statements are sent.
    fn note_unprepared(&self, error: &sqlx::Error) {
        self.loses_prepared.store(true, Ordering::Relaxed);
        tracing::debug!(
            target: "dlock",
            %error,
            "{} does not keep prepared statements (a proxy that pools by transaction?)",
            DB::KIND
        );
    }

    /// Runs work on the pool with the request timeout.
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

fn complete<DB: Database>(reply: Reply<DB>, least: usize) -> Result<Reply<DB>, sqlx::Error> {
    if reply.rows.len() < least {
        return Err(sqlx::Error::Protocol("the answer belongs to another statement".to_owned()));
    }
    Ok(reply)
}

/// Opens a pool.
pub(crate) async fn connect<DB: Dialect>(
    options: <DB::Connection as Connection>::Options,
    address: &str,
    connections: u32,
    limit: Duration,
) -> Result<Pool<DB>, BackendError> {
    // One connection outside the pool first: a pool hides why it cannot connect.
    let connect = async |options: &_| {
        let first = tokio::time::timeout(limit, DB::Connection::connect_with(options)).await;
        first.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    };
    let (options, first) = match DB::with_settings(&options) {
        None => {
            let first = connect(&options).await;
            (options, first)
        }
        Some(set) => match connect(&set).await {
            // A proxy that refuses the settings, perhaps.
            Err(error) if error.as_database_error().is_some() => {
                let first = connect(&options).await;
                (options, first)
            }
            first => (set, first),
        },
    };
    let unreachable = |error| {
        let what = format!("cannot connect to {} at {address}", DB::KIND);
        explain(&what, error, DB::is_transient).not_sent()
    };
    drop(first.map_err(unreachable)?);
    Ok(PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(limit)
        // A broken connection is noticed on use, and the request is sent again.
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// Converts an error for the engine.
pub(crate) fn failure<DB: Dialect>(error: sqlx::Error) -> BackendError {
    let never_executed = is_unsent(&error) || DB::is_rolled_back(&error);
    let failure = explain(DB::KIND, error, DB::is_transient);
    if never_executed { failure.not_sent() } else { failure }
}
