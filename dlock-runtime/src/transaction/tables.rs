//! The table of row locks.

use sqlx::{Database, Pool};

use super::Transactional;
use crate::error::BackendError;
use crate::sql::store::{DEFAULT_LIMIT, Dialect, Store};
use crate::sql::tables::Table;

/// A database whose transactions can hold row locks: `sqlx::Postgres`, `sqlx::MySql`.
pub trait RowLockDatabase: Database<Connection: Transactional> + sealed::Tables {}

pub(crate) mod sealed {
    use super::{BackendError, Pool};

    /// What each database does in its own way.
    pub trait Tables: sqlx::Database {
        fn create(pool: Pool<Self>) -> impl Future<Output = Result<(), BackendError>> + Send;
    }
}

/// Makes the table of row locks in the pool's database unless it is there: call it when the process
/// starts. It is in `sql/postgres/rows.sql` and `sql/mysql/rows.sql` of this crate for a role that
/// may not make tables.
///
/// # Errors
/// A database that cannot be reached, or a role that may neither find nor make the table.
///
/// # Cancel safety
/// Cancel safe: it is idempotent.
pub async fn create_tables<DB: RowLockDatabase>(pool: &Pool<DB>) -> Result<(), BackendError> {
    DB::create(pool.clone()).await
}

fn store<DB: Dialect>(pool: Pool<DB>) -> Store<DB> {
    Store { pool, limit: DEFAULT_LIMIT }
}

#[cfg(feature = "postgres")]
impl RowLockDatabase for sqlx::Postgres {}

/// Fails as a statement would for which this role lacks the privilege: versions before did without.
#[cfg(feature = "postgres")]
const MAY_RAISE: &str = "DO $$ BEGIN \
    IF NOT has_sequence_privilege('dlock_tokens', 'USAGE') OR NOT has_sequence_privilege('dlock_tokens', 'UPDATE') THEN \
    RAISE insufficient_privilege USING MESSAGE = 'permission denied: USAGE and UPDATE on sequence dlock_tokens are needed'; \
    END IF; END $$";

#[cfg(feature = "postgres")]
impl sealed::Tables for sqlx::Postgres {
    async fn create(pool: Pool<Self>) -> Result<(), BackendError> {
        let table = Table {
            name: "dlock_rows",
            file: "sql/postgres/rows.sql",
            statements: include_str!("../../sql/postgres/rows.sql").to_owned(),
            probe: format!(
                "SELECT count(*), 'dlock_tokens'::regclass FROM dlock_rows; {MAY_RAISE}"
            ),
        };
        table.ensure(&store(pool)).await
    }
}

#[cfg(feature = "mysql")]
impl RowLockDatabase for sqlx::MySql {}

#[cfg(feature = "mysql")]
impl sealed::Tables for sqlx::MySql {
    async fn create(pool: Pool<Self>) -> Result<(), BackendError> {
        let table = Table {
            name: "dlock_rows",
            file: "sql/mysql/rows.sql",
            statements: include_str!("../../sql/mysql/rows.sql").to_owned(),
            probe: "SELECT used_at FROM dlock_rows WHERE lock_key = ''".to_owned(),
        };
        table.ensure(&store(pool)).await
    }
}
