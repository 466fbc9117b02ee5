use dlock_runtime::{LockError, distributed_lock};
use sqlx::{Postgres, Transaction};

#[distributed_lock(key = "product:<id>", unlock_before_commit = "yes")]
async fn purchase(id: u64, tx: &mut Transaction<'_, Postgres>) -> Result<(), LockError> {
    let _ = (id, tx);
    Ok(())
}

fn main() {}
