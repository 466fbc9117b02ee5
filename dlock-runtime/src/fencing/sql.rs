//! Fenced rows in an SQL table.

use sqlx::{Connection, Database, Encode, Executor, QueryBuilder, Row, Type};

use super::FencingError;
use crate::token::FencingToken;

/// The default column of the largest token: `BIGINT NULL`.
const COLUMN: &str = "fencing_token";

/// Starts an update of one row of `table` that refuses a stale token.
///
/// The table needs a column `fencing_token BIGINT NULL` (or [another](FencedUpdate::column)), which
/// the update sets. Names and expressions become part of the statement unchanged; values are bound.
///
/// ```no_run
/// # async fn example(connection: &mut sqlx::sqlite::SqliteConnection, lock: &dlock_runtime::LockGuard) -> Result<(), dlock_runtime::fencing::FencingError> {
/// dlock_runtime::fencing::update(connection, "products", lock.fencing_token())
///     .set_expression("stock = stock - 1")
///     .filter("id", 7)
///     .execute()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is written before `execute`"]
pub fn update<'c, C>(
    connection: &'c mut C,
    table: &'static str,
    token: FencingToken,
) -> FencedUpdate<'c, C::Database>
where
    C: Connection<Database: FencedDatabase<Connection = C>>,
{
    FencedUpdate { connection, table, column: COLUMN, token, changes: vec![] }
}

/// A fenced update without a row yet; see [`update`].
#[must_use = "nothing is written before `execute`"]
pub struct FencedUpdate<'c, DB: Database> {
    connection: &'c mut DB::Connection,
    table: &'static str,
    column: &'static str,
    token: FencingToken,
    changes: Vec<Push<DB>>,
}

/// A fenced update of a chosen row; created by [`FencedUpdate::filter`].
#[must_use = "nothing is written before `execute`"]
pub struct FencedUpdateWhere<'c, DB: Database> {
    update: FencedUpdate<'c, DB>,
    conditions: Vec<Push<DB>>,
}

/// Writes one part of a statement.
type Push<DB> = Box<dyn Fn(&mut QueryBuilder<DB>) + Send + Sync>;

impl<'c, DB: FencedDatabase> FencedUpdate<'c, DB> {
    /// Sets the column that holds the largest token; `fencing_token` if not set.
    pub fn column(mut self, column: &'static str) -> Self {
        self.column = column;
        self
    }

    /// Sets a column to a value.
    pub fn set<T>(mut self, column: &'static str, value: T) -> Self
    where
        T: Clone + Encode<'static, DB> + Type<DB> + Send + Sync + 'static,
    {
        self.changes.push(bound(column, value));
        self
    }

    /// Sets a column to an expression, such as `stock = stock - 1`.
    pub fn set_expression(mut self, assignment: &'static str) -> Self {
        self.changes.push(Box::new(move |query| {
            query.push(assignment);
        }));
        self
    }

    /// Chooses the row whose `column` has this value.
    pub fn filter<T>(self, column: &'static str, value: T) -> FencedUpdateWhere<'c, DB>
    where
        T: Clone + Encode<'static, DB> + Type<DB> + Send + Sync + 'static,
    {
        FencedUpdateWhere { update: self, conditions: vec![bound(column, value)] }
    }
}

impl<DB: FencedDatabase> FencedUpdateWhere<'_, DB> {
    /// Adds a condition: another column has this value.
    pub fn filter<T>(mut self, column: &'static str, value: T) -> Self
    where
        T: Clone + Encode<'static, DB> + Type<DB> + Send + Sync + 'static,
    {
        self.conditions.push(bound(column, value));
        self
    }

    /// Executes the update, in the connection's transaction if there is one.
    ///
    /// # Errors
    /// [`FencingError::Stale`] if a later holder has written the row, [`FencingError::NoSuchRow`] if no
    /// row matches, and [`FencingError::Store`] if the database fails.
    ///
    /// # Cancel safety
    /// If the future is dropped, the update may or may not have been made.
    pub async fn execute(self) -> Result<(), FencingError> {
        let (statement, newest_query) = (self.statement(), self.newest_query());
        let FencedUpdate { connection, token, .. } = self.update;
        let written = DB::write(connection, statement).await;
        if written.map_err(FencingError::store)? > 0 {
            return Ok(());
        }
        let newest = DB::newest(connection, newest_query).await;
        match newest.map_err(FencingError::store)? {
            Some(newest) => Err(FencingError::Stale {
                presented: token,
                newest: FencingToken::new(newest.unsigned_abs()),
            }),
            None => Err(FencingError::NoSuchRow),
        }
    }

    /// `UPDATE … WHERE …`, for a token that is not stale.
    fn statement(&self) -> QueryBuilder<DB> {
        let FencedUpdate { table, column, token, changes, .. } = &self.update;
        let token = token.get().cast_signed();
        let mut query = QueryBuilder::new(format!("UPDATE {table} SET {column} = "));
        DB::bind(&mut query, token);
        for change in changes {
            query.push(", ");
            change(&mut query);
        }
        self.push_conditions(&mut query);
        query.push(format!(" AND ({column} IS NULL OR {column} <= "));
        DB::bind(&mut query, token);
        query.push(")");
        query
    }

    /// Selects the token that has written the row.
    fn newest_query(&self) -> QueryBuilder<DB> {
        let FencedUpdate { table, column, .. } = &self.update;
        let mut query = QueryBuilder::new(format!("SELECT COALESCE({column}, 0) FROM {table}"));
        self.push_conditions(&mut query);
        query
    }

    fn push_conditions(&self, query: &mut QueryBuilder<DB>) {
        let mut before = " WHERE ";
        for condition in &self.conditions {
            query.push(before);
            condition(query);
            before = " AND ";
        }
    }
}

/// `column = value`
fn bound<DB: FencedDatabase, T>(column: &'static str, value: T) -> Push<DB>
where
    T: Clone + Encode<'static, DB> + Type<DB> + Send + Sync + 'static,
{
    Box::new(move |query| {
        query.push(format!("{column} = ")).push_bind(value.clone());
    })
}

/// A database whose rows can be fenced: `sqlx::Sqlite`, `sqlx::Postgres`, `sqlx::MySql`.
pub trait FencedDatabase: sealed::Statements {}

mod sealed {
    use sqlx::{Database, QueryBuilder};

    /// Operations that sqlx's traits can express only for each concrete database.
    pub trait Statements: Database {
        fn bind(query: &mut QueryBuilder<Self>, token: i64);

        /// Returns the number of rows that were updated.
        fn write(
            connection: &mut Self::Connection,
            query: QueryBuilder<Self>,
        ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

        fn newest(
            connection: &mut Self::Connection,
            query: QueryBuilder<Self>,
        ) -> impl Future<Output = Result<Option<i64>, sqlx::Error>> + Send;
    }
}

macro_rules! fenced {
    ($feature:literal, $database:ty) => {
        #[cfg(feature = $feature)]
        impl FencedDatabase for $database {}

        #[cfg(feature = $feature)]
        impl sealed::Statements for $database {
            fn bind(query: &mut QueryBuilder<Self>, token: i64) {
                query.push_bind(token);
            }

            async fn write(
                connection: &mut Self::Connection,
                mut query: QueryBuilder<Self>,
            ) -> Result<u64, sqlx::Error> {
                Ok(connection.execute(query.build()).await?.rows_affected())
            }

            async fn newest(
                connection: &mut Self::Connection,
                mut query: QueryBuilder<Self>,
            ) -> Result<Option<i64>, sqlx::Error> {
                let row = connection.fetch_optional(query.build()).await?;
                row.map(|row| row.try_get(0)).transpose()
            }
        }
    };
}

fenced!("sqlite", sqlx::Sqlite);
fenced!("postgres", sqlx::Postgres);
fenced!("mysql", sqlx::MySql);
