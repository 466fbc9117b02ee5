//! Deletes rows of MySQL's table of row locks that have not been locked for a while.

use std::time::Duration;

use sqlx::mysql::{MySqlPool, MySqlQueryResult, MySqlRow};
use sqlx::{MySql, Row};

use super::dialect as mysql;
use crate::error::BackendError;
use crate::stores::shared::sql::store::{DEFAULT_LIMIT, Store, failure};
use crate::stores::shared::sql::{read, send};

/// How many rows are deleted at once.
const AT_ONCE: usize = 1000;

/// How long one round may take.
const LIMIT: Duration = Duration::from_secs(10);

const IDLE: &str = "lock_key <> '' AND used_at < UTC_TIMESTAMP(6) - INTERVAL 1 HOUR";

/// Deletes the rows that no transaction has locked for an hour, and returns how many.
///
/// It takes two calls, a minute or more apart: the first one remembers the rows' largest token, so that later tokens
/// exceed it. Rows that are locked now are left alone. A [`MySql`](crate::backend::MySql) backend on the same database
/// does this by itself; without one, call it now and then. (PostgreSQL does not need it: its rows live no longer than
/// the transaction.)
///
/// # Errors
/// A database error, or a missing table.
///
/// # Cancel safety
/// Cancel safe: rows that were deleted stay deleted.
pub async fn delete_idle_rows(pool: &MySqlPool) -> Result<u64, BackendError> {
    delete_idle_rows_over(&Store::shared(pool.clone(), DEFAULT_LIMIT)).await
}

/// The same over the connections of a backend, which may keep all of its pool's connections.
pub(crate) async fn delete_idle_rows_over(store: &Store<MySql>) -> Result<u64, BackendError> {
    // Written long enough ago for every statement in flight to see it.
    let floor = "SELECT token FROM dlock_rows WHERE lock_key = '' AND used_at < UTC_TIMESTAMP(6) - INTERVAL 1 MINUTE";
    let Some(floor) = store.run(floor.to_owned()).await?.row().map(token).transpose()? else {
        return Ok(0);
    };
    let mut deleted = 0;
    loop {
        let under = format!(
            "SELECT token, lock_key FROM dlock_rows WHERE {IDLE} AND token <= {floor} LIMIT {AT_ONCE}"
        );
        let keys = keys(&store.run(under).await?.rows).map_err(failure::<MySql>)?;
        let now_deleted = if keys.is_empty() { 0 } else { delete(store, &keys).await? };
        deleted += now_deleted;
        if now_deleted == 0 {
            break;
        }
    }
    // In two statements: a read within an update locks what it reads.
    let largest =
        format!("SELECT MAX(token) FROM dlock_rows WHERE {IDLE} HAVING MAX(token) > {floor}");
    if let Some(row) = store.run(largest).await?.row() {
        let raise = format!(
            "UPDATE dlock_rows SET token = GREATEST(token, {}), used_at = UTC_TIMESTAMP(6) WHERE lock_key = ''",
            token(row)?
        );
        store.run(raise).await?;
    }
    Ok(deleted)
}

/// Deletes those of the rows that nobody has locked. It goes through the index: a scan of the whole table would lock,
/// and wait for, all of them.
async fn delete(store: &Store<MySql>, keys: &str) -> Result<u64, BackendError> {
    let work = async {
        // Closed, and so rolled back, unless it is given back.
        let mut connection = store.connections.take().await?;
        let lock = format!(
            "START TRANSACTION; SELECT token, lock_key FROM dlock_rows FORCE INDEX (PRIMARY) WHERE lock_key IN ({keys}) AND {IDLE} FOR UPDATE SKIP LOCKED"
        );
        let free = self::keys(&send::<MySql>(connection.get(), lock).await?.rows)?;
        let free = if free.is_empty() { "''".to_owned() } else { free };
        let delete = format!(
            "DELETE dlock_rows FROM dlock_rows FORCE INDEX (PRIMARY) WHERE lock_key IN ({free}) AND {IDLE}"
        );
        let deleted = send::<MySql>(connection.get(), delete).await?;
        send::<MySql>(connection.get(), "COMMIT".to_owned()).await?;
        connection.give_back();
        Ok(deleted.last().map_or(0, MySqlQueryResult::rows_affected))
    };
    let late = |_| Err(sqlx::Error::PoolTimedOut);
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(late).map_err(failure::<MySql>)
}

fn token(row: &MySqlRow) -> Result<u64, BackendError> {
    read(row, 0)
}

/// The keys in the second column, as a list of literals.
fn keys(rows: &[Vec<MySqlRow>]) -> Result<String, sqlx::Error> {
    let keys = rows.iter().flatten().map(|row| Ok(mysql::bytes(&row.try_get::<Vec<u8>, _>(1)?)));
    Ok(keys.collect::<Result<Vec<_>, sqlx::Error>>()?.join(","))
}
