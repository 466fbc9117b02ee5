use dlock_runtime::{LockError, distributed_lock};
use sqlx::{Sqlite, Transaction};

#[distributed_lock(key = "product:<id>", transaction = tx)]
async fn purchase(id: u64, tx: &mut Transaction<'_, Sqlite>) -> Result<(), LockError> {
    let _ = (id, tx);
    Ok(())
}

fn main() {}
