use dlock_runtime::{LockError, distributed_lock};
use sqlx::SqliteTransaction;

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64, tx: &mut SqliteTransaction<'_>) -> Result<(), LockError> {
    let _ = (id, tx);
    Ok(())
}

fn main() {}
