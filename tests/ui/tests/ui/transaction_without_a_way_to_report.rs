use dlock_runtime::distributed_lock;
use sqlx::{Postgres, Transaction};

struct ShopError;

#[distributed_lock(key = "product:<id>", transaction = tx)]
async fn purchase(id: u64, tx: &mut Transaction<'_, Postgres>) -> Result<(), ShopError> {
    let _ = (id, tx);
    Ok(())
}

#[distributed_lock(key = "product:<id>", transaction = tx, on_busy = "skip")]
async fn stock(id: u64, tx: &mut Transaction<'_, Postgres>) -> Result<u64, dlock_runtime::LockError> {
    let _ = tx;
    Ok(id)
}

fn main() {}
