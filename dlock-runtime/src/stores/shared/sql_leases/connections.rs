//! The connections of a backend that keeps leases in a table: those for acquires, and a few that are kept for
//! renewals and releases, so that nothing that waits can starve a renewal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{Connection, Database, Pool};

use crate::error::BackendError;
use crate::lock_table::row::Purpose;
use crate::stores::shared::doubt::Doubt;
use crate::stores::shared::sql::Reply;
use crate::stores::shared::sql::kept::Connections;
use crate::stores::shared::sql::prepared::Prepared;
use crate::stores::shared::sql::store::{Dialect, Message, Store, Tries, failure};

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
        let acquires = if is_own { Connections::keep(pool) } else { Connections::Shared(pool) };
        Self {
            acquires: Store::new(acquires, limit),
            holds: Store::new(Connections::keep(holds), limit),
            options: Mutex::new(options),
        }
    }

    /// What each connection prepares that the service does not use.
    pub(crate) fn prepare(&mut self, prepared: &Arc<[Prepared]>) {
        for store in [&mut self.acquires, &mut self.holds] {
            store.prepared = Arc::clone(prepared);
        }
    }

    pub(crate) fn pool(&self) -> &Pool<DB> {
        self.acquires.connections.pool()
    }

    /// For statements that wait for no row and need no bound.
    pub(crate) fn plain(&self) -> &Store<DB> {
        &self.acquires
    }

    pub(crate) fn limit(&self) -> Duration {
        self.acquires.limit
    }

    /// Sends statements in one message.
    pub(crate) async fn run(
        &self,
        lane: Lane,
        statements: &str,
    ) -> Result<Reply<DB>, BackendError> {
        self.run_bounded(lane, statements, Tries::ONCE).await
    }

    /// The same for statements that may be executed twice without harm. They are sent again when the connection turns
    /// out to be broken; one in a pool may have been broken for long.
    pub(crate) async fn run_repeatable(
        &self,
        lane: Lane,
        statements: &str,
    ) -> Result<Reply<DB>, BackendError> {
        self.run_bounded(lane, statements, self.repeatable(lane)).await
    }

    /// The same for an acquire; `doubt` notes that it was sent again.
    pub(crate) async fn run_acquire(
        &self,
        doubt: &Doubt,
        statements: &str,
    ) -> Result<Reply<DB>, BackendError> {
        let tries = Tries { doubt: Some(doubt), ..self.repeatable(Lane::Acquires) };
        self.run_bounded(Lane::Acquires, statements, tries).await
    }

    /// How often something may be sent that may be executed twice without harm.
    pub(crate) fn repeatable(&self, lane: Lane) -> Tries<'static> {
        let others = self.pool().options().get_max_connections();
        let spare = if lane == Lane::Holds { others.saturating_add(FOR_HOLDS) } else { others };
        Tries { spare, ..Tries::ONCE }
    }

    async fn run_bounded(
        &self,
        lane: Lane,
        statements: &str,
        tries: Tries<'_>,
    ) -> Result<Reply<DB>, BackendError> {
        let bounded = DB::bounded(statements, self.limit());
        let least = 1 + usize::from(DB::BOUND_IS_A_STATEMENT);
        let reply = self.send(lane, Message::Statements(&bounded, least), tries).await;
        let mut reply = reply.map_err(failure::<DB>)?;
        if DB::BOUND_IS_A_STATEMENT {
            reply.rows.remove(0);
        }
        Ok(reply)
    }

    /// Sends a message, with sqlx's own error.
    pub(crate) async fn send(
        &self,
        lane: Lane,
        message: Message<'_>,
        tries: Tries<'_>,
    ) -> Result<Reply<DB>, sqlx::Error> {
        let (store, first) = match lane {
            Lane::Acquires => (&self.acquires, None),
            Lane::Holds => {
                self.follow_options();
                // An idle connection of the acquires will do.
                (&self.holds, self.acquires.connections.take_idle())
            }
        };
        store.in_time(store.send(first, message, tries)).await
    }

    /// Sends a transaction in one message, its commit included. False if a number in it was out of range or another
    /// transaction made the server undo it; then nothing is done.
    #[cfg(feature = "mysql")]
    pub(crate) async fn run_in_one_message(&self, statements: &str) -> Result<bool, BackendError> {
        let store = &self.acquires;
        let send = async {
            // If it fails the connection is closed, and the server rolls everything back.
            let mut link = store.connections.take().await?;
            DB::send(link.get(), statements.to_owned()).await?;
            link.give_back();
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
            self.holds.connections.pool().set_connect_options(Options::<DB>::clone(&latest));
            *options = latest;
        }
    }
}
