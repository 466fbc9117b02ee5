//! The connections of a backend that keeps leases in a table: those for acquires, and a few that are kept for
//! renewals and releases, so that nothing that waits can starve a renewal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{Connection, Database, Pool};

use crate::error::BackendError;
use crate::lock_table::row::Purpose;
use crate::stores::shared::doubt::Doubt;
use crate::stores::shared::sql::Reply;
#[cfg(feature = "mysql")]
use crate::stores::shared::sql::store::Checkout;
use crate::stores::shared::sql::store::{Dialect, Store, failure};

/// How many connections are kept for renewals and releases at most. They are several, so that one that waits for its
/// row does not delay all others.
const FOR_HOLDS: u32 = 4;

/// What a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Acquires, and everything else that can wait.
    Acquires,
    /// Renewals and releases. They never queue behind acquires, nor behind the caller's own work on a shared pool.
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

pub(crate) type Options<DB> = <<DB as Database>::Connection as Connection>::Options;

/// A pool for the acquires, and one for the holds.
pub(crate) struct LeaseStore<DB: Database> {
    acquires: Store<DB>,
    holds: Store<DB>,
    /// Does the backend alone use the pool of the acquires?
    is_own: bool,
    /// What the connections of the holds are opened with.
    options: Mutex<Arc<Options<DB>>>,
}

impl<DB: Dialect> LeaseStore<DB> {
    /// Uses `pool` for the acquires; `is_own` says that the service does no other work on it.
    pub(crate) fn new(pool: Pool<DB>, limit: Duration, is_own: bool) -> Self {
        let options = pool.connect_options();
        // With the pool's own hooks: they may set where the table is found.
        let holds = pool.options().clone();
        let holds = holds.min_connections(0).max_connections(FOR_HOLDS).acquire_timeout(limit);
        // A broken connection is noticed when it is used.
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

    /// For the statements that the server does not bound: those that create the table.
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

    /// The same for statements that may be executed twice without harm. They are sent again when the connection turns
    /// out to be broken; one in a pool may have been broken for long.
    pub(crate) async fn run_repeatable(
        &self,
        lane: Lane,
        statements: &str,
    ) -> Result<Reply<DB>, BackendError> {
        self.send(lane, statements, self.others(lane), None).await
    }

    /// The same for an acquire; `doubt` notes that it was sent again.
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
                // An idle connection of the acquires will do.
                let idle = if self.is_own { self.pool().try_acquire() } else { None };
                (&self.holds, idle)
            }
        };
        let bounded = DB::bounded(statements, store.limit);
        let least = 1 + usize::from(DB::BOUND_IS_A_STATEMENT);
        let reply = store.in_time(store.send(first, &bounded, least, others, doubt)).await;
        let mut reply = reply.map_err(failure::<DB>)?;
        if DB::BOUND_IS_A_STATEMENT {
            reply.rows.remove(0);
        }
        Ok(reply)
    }

    /// Sends a transaction in one message, its commit included. False if a number in it was out of range or another
    /// transaction made the server undo it; then nothing is done.
    #[cfg(feature = "mysql")]
    pub(crate) async fn run_in_one_message(&self, statements: &str) -> Result<bool, BackendError> {
        let store = &self.acquires;
        let send = async {
            // If it fails the connection is closed, and the server rolls everything back.
            let mut connection = Checkout::new(store.pool.acquire().await?);
            DB::send(connection.get(), statements.to_owned()).await?;
            connection.return_to_pool();
            Ok(true)
        };
        store.in_time(send).await.or_else(|error| {
            let is_rolled_back = DB::is_out_of_range(&error) || DB::is_rolled_back(&error);
            if is_rolled_back { Ok(false) } else { Err(failure::<DB>(error)) }
        })
    }

    /// New credentials of the pool are used for the holds as well.
    fn follow_options(&self) {
        let latest = self.pool().connect_options();
        let mut options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&options, &latest) {
            self.holds.pool.set_connect_options(Options::<DB>::clone(&latest));
            *options = latest;
        }
    }
}
