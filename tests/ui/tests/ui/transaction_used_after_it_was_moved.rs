use dlock_runtime::{LockError, distributed_lock};
use sqlx::{Postgres, Transaction};

#[distributed_lock(key = "product:<id>", transaction = tx)]
async fn purchase(id: u64, mut tx: Transaction<'static, Postgres>) -> Result<(), LockError> {
    drop(tx);
    let _ = (id, &mut tx);
    Ok(())
}

fn main() {}
