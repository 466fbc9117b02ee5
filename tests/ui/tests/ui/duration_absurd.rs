use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", ttl = "3 days", wait = "2 years", max_hold = "1us")]
async fn purchase(id: u64, quantity: u32) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
