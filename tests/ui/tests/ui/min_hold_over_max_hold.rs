use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "report", ttl = "5s", min_hold = "2m", max_hold = "1m")]
async fn purchase() -> Result<(), LockError> {
    Ok(())
}

fn main() {}
