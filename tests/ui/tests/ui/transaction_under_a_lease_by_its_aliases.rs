use dlock_runtime::{LockError, distributed_lock};
use sqlx::{MySqlTransaction, PgTransaction};

#[distributed_lock(key = "product:<id>")]
async fn postgres(id: u64, tx: &mut PgTransaction<'_>) -> Result<(), LockError> {
    let _ = (id, tx);
    Ok(())
}

#[distributed_lock(key = "product:<id>")]
async fn mysql(id: u64, tx: Option<&mut MySqlTransaction<'_>>) -> Result<(), LockError> {
    let _ = (id, tx);
    Ok(())
}

fn main() {}
