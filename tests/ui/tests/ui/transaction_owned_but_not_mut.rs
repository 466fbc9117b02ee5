use dlock_runtime::{LockError, distributed_lock};
use sqlx::{Postgres, Transaction};

#[distributed_lock(key = "product:<id>", transaction = tx)]
async fn purchase(id: u64, tx: Transaction<'static, Postgres>) -> Result<(), LockError> {
    let _ = (id, tx);
    Ok(())
}

fn main() {}
