use dlock_runtime::{LockError, distributed_lock};
use sqlx::{Postgres, Transaction};

#[distributed_lock(
    key = "product:<id>",
    transaction = tx,
    ttl = "5s",
    backend = "redis",
    renew = false,
    max_hold = "4s",
    min_hold = "1s",
    grace = "1s",
    on_lost = "keep",
    reentrant = false,
    permits = 3,
    fair = true,
    handover = "off",
    unlock_before_commit = true
)]
async fn purchase(id: u64, tx: &mut Transaction<'_, Postgres>) -> Result<(), LockError> {
    let _ = (id, tx);
    Ok(())
}

fn main() {}
