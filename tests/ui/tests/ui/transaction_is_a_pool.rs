use dlock_runtime::{LockError, distributed_lock};
use sqlx::PgPool;

#[distributed_lock(key = "product:<id>", transaction = pool)]
async fn purchase(id: u64, pool: &mut PgPool) -> Result<(), LockError> {
    let _ = (id, pool);
    Ok(())
}

fn main() {}
