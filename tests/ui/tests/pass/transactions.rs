#![deny(warnings)]

use dlock_runtime::{LockError, distributed_lock};
use sqlx::{Connection, PgConnection, PgTransaction, Postgres};

/// The shop's own word: no transaction of a database.
#[derive(Clone, Debug)]
struct Transaction<Money>(Money);

#[distributed_lock(key = "booking:<id>")]
async fn book(id: u64, transaction: &mut Transaction<u64>) -> Result<(), LockError> {
    transaction.0 += id;
    Ok(())
}

/// Insisted upon.
#[distributed_lock(key = "report:<id>", unlock_before_commit = true)]
async fn report(id: u64, tx: &mut sqlx::Transaction<'_, Postgres>) -> Result<u64, LockError> {
    let _ = tx;
    Ok(id)
}

/// An owned one is committed inside.
#[distributed_lock(key = "order:<id>")]
async fn order(id: u64, tx: PgTransaction<'static>) -> Result<u64, LockError> {
    tx.commit().await.map_err(|_| LockError::NotInstalled)?;
    Ok(id)
}

/// Begun inside.
#[distributed_lock(key = "order:<id>")]
async fn place(id: u64, connection: &mut PgConnection) -> Result<u64, LockError> {
    let tx = connection.begin().await.map_err(|_| LockError::NotInstalled)?;
    tx.commit().await.map_err(|_| LockError::NotInstalled)?;
    Ok(id)
}

/// A plain connection that is in a transaction, and one that is whatever the caller has.
#[distributed_lock(key = "product:<id>", transaction = connection)]
async fn sell(id: u64, connection: &mut PgConnection) -> Result<u64, LockError> {
    Ok(id)
}

#[distributed_lock(key = "product:<id>", transaction = tx)]
async fn sell_in_any<DB: dlock_runtime::transaction::RowLockDatabase>(
    id: u64,
    tx: &mut sqlx::Transaction<'_, DB>,
) -> Result<u64, LockError> {
    Ok(id)
}

fn main() {
    let _ = (book, report, order, place, sell, sell_in_any::<Postgres>);
}
