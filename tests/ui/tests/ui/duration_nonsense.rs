use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", ttl = "five seconds", max_hold = "")]
async fn purchase(id: u64, quantity: u32) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
