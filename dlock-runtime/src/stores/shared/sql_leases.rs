//! The connections of a backend that keeps leases in a table: those that acquires use, and some that are kept for
//! the holds there are, so that nothing that waits can starve a renewal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, Database, Executor, Pool};

use super::sql::Reply;
#[cfg(feature = "mysql")]
use super::sql::send;
#[cfg(feature = "mysql")]
use super::sql::store::Checkout;
use super::sql::store::{Dialect, Store, failure};
use crate::error::BackendError;
use crate::lock_table::row::Purpose;
use crate::stores::shared::doubt::Doubt;

/// How many connections the holds have at most to themselves. One that waits for its row does not keep all others
/// waiting.
const FOR_HOLDS: u32 = 4;

/// What a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Acquires, and whatever else may wait.
    Acquires,
    /// Renewals and releases: they never queue behind acquires, nor behind the caller's own work on a pool that is
    /// shared with it.
    Holds,
}

impl From<Purpose> for Lane {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Acquire => Self::Acquires,
            Purpose::Renew | Purpose::Release => Self::Holds,
        }
    }
}

type Options<DB> = <<DB as Database>::Connection as Connection>::Options;

pub(crate) struct LeaseStore<DB: Database> {
    acquires: Store<DB>,
    holds: Store<DB>,
    /// Does nobody else use the connections of the acquires?
    is_own: bool,
    /// What the connections of the holds are opened with.
    options: Mutex<Arc<Options<DB>>>,
}

impl<DB: Dialect> LeaseStore<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    Options<DB>: ConnectOptions<Connection = DB::Connection>,
{
    /// Over a pool for the acquires, which is nobody else's or is shared with the service's own work.
    pub(crate) fn new(pool: Pool<DB>, limit: Duration, is_own: bool) -> Self {
        let options = pool.connect_options();
        // With the pool's own hooks: they may say where the table is found.
        let holds = pool.options().clone();
        let holds = holds.min_connections(0).max_connections(FOR_HOLDS).acquire_timeout(limit);
        // A broken connection shows when it is used.
        let holds =
            holds.test_before_acquire(false).connect_lazy_with(Options::<DB>::clone(&options));
        Self {
            acquires: Store { pool, limit },
            holds: Store { pool: holds, limit },
            is_own,
            options: Mutex::new(options),
        }
    }

    pub(crate) fn pool(&self) -> &Pool<DB> {
        &self.acquires.pool
    }

    /// For statements that are not bounded on the server: those that make the table.
    pub(crate) fn plain(&self) -> &Store<DB> {
        &self.acquires
    }

    /// Sends statements in one message.
    pub(crate) async fn run(
        &self,
        lane: Lane,
        statements: &str,
    ) -> Result<Reply<DB>, BackendError> {
        self.send(lane, statements, 0, None).await
    }

    /// The same for what may be executed twice without harm: it is sent again when the connection
    /// turns out to be broken, which one in a pool may have been for long.
    pub(crate) async fn run_repeatable(
        &self,
        lane: Lane,
        statements: &str,
    ) -> Result<Reply<DB>, BackendError> {
        self.send(lane, statements, self.others(lane), None).await
    }

    /// The same for an acquire: that it was sent again is noted in `doubt`.
    pub(crate) async fn run_acquire(
        &self,
        doubt: &Doubt,
        statements: &str,
    ) -> Result<Reply<DB>, BackendError> {
        let lane = Lane::Acquires;
        self.send(lane, statements, self.others(lane), Some(doubt)).await
    }

    /// How many connections may turn out to be broken.
    fn others(&self, lane: Lane) -> u32 {
        let others = self.pool().options().get_max_connections();
        if lane == Lane::Holds { others.saturating_add(FOR_HOLDS) } else { others }
    }

    async fn send(
        &self,
        lane: Lane,
        statements: &str,
        others: u32,
        doubt: Option<&Doubt>,
    ) -> Result<Reply<DB>, BackendError> {
        let (store, first) = match lane {
            Lane::Acquires => (&self.acquires, None),
            Lane::Holds => {
                self.follow_options();
                // One that nobody waits for is as good.
                let idle = if self.is_own { self.pool().try_acquire() } else { None };
                (&self.holds, idle)
            }
        };
        let bounded = DB::bounded(statements, store.limit);
        let reply = store.in_time(store.send(first, &bounded, others, doubt)).await;
        let mut reply = reply.map_err(failure::<DB>)?;
        if DB::BOUND_IS_A_STATEMENT && !reply.rows.is_empty() {
            reply.rows.remove(0);
        }
        Ok(reply)
    }

    /// Sends a transaction in one message, its commit included; false, and nothing is done, if one of its statements
    /// was out of range, or was undone for another's sake.
    #[cfg(feature = "mysql")]
    pub(crate) async fn run_in_one_message(&self, statements: &str) -> Result<bool, BackendError> {
        let store = &self.acquires;
        let send = async {
            // One on which it failed is closed, and the server takes everything back.
            let mut connection = Checkout::new(store.pool.acquire().await?);
            send::<DB>(connection.get(), statements.to_owned()).await?;
            connection.give_back();
            Ok(true)
        };
        store.in_time(send).await.or_else(|error| {
            let is_undone = DB::is_out_of_range(&error) || DB::is_undone(&error);
            if is_undone { Ok(false) } else { Err(failure::<DB>(error)) }
        })
    }

    /// Credentials that the pool was given later are those of the holds as well.
    fn follow_options(&self) {
        let latest = self.pool().connect_options();
        let mut options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&options, &latest) {
            self.holds.pool.set_connect_options(Options::<DB>::clone(&latest));
            *options = latest;
        }
    }
}
