//! The table of row locks.

use sqlx::{Database, Pool};

use super::Transactional;
use crate::error::BackendError;
use crate::stores::shared::sql::store::{DEFAULT_LIMIT, Dialect, Store};

/// A database whose transactions can hold row locks: `sqlx::Postgres`, `sqlx::MySql`.
pub trait RowLockDatabase: Database<Connection: Transactional> + sealed::Tables {}

pub(crate) mod sealed {
    use super::{BackendError, Pool};

    /// The database-specific part.
    pub trait Tables: sqlx::Database {
        fn create(pool: Pool<Self>) -> impl Future<Output = Result<(), BackendError>> + Send;
    }
}

/// Creates the table of row locks in the pool's database if it does not exist; call it at startup.
///
/// If the service's role may not create tables, run `src/stores/postgres/rows.sql` or `src/stores/mysql/rows.sql` of
/// this crate instead.
///
/// # Errors
/// A database that cannot be reached, or a role that may neither see nor create the table.
///
/// # Cancel safety
/// Cancel safe: it is idempotent.
pub async fn create_tables<DB: RowLockDatabase>(pool: &Pool<DB>) -> Result<(), BackendError> {
    DB::create(pool.clone()).await
}

pub(crate) fn store<DB: Dialect>(pool: Pool<DB>) -> Store<DB> {
    Store::shared(pool, DEFAULT_LIMIT)
}
