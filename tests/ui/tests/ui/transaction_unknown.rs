use dlock_runtime::{LockError, distributed_lock};
use sqlx::{Postgres, Transaction};

#[distributed_lock(key = "product:<id>", transaction = txn)]
async fn purchase(id: u64, tx: &mut Transaction<'_, Postgres>) -> Result<(), LockError> {
    let _ = (id, tx);
    Ok(())
}

#[distributed_lock(key = "all", transaction = tx)]
async fn purchase_all() -> Result<(), LockError> {
    Ok(())
}

fn main() {}
