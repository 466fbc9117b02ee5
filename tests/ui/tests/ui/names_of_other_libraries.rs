use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "report", lock_at_most_for = "5m", lock_at_least_for = "1m", shared = true, lock_delay = "15s")]
async fn purchase() -> Result<(), LockError> {
    Ok(())
}

fn main() {}
