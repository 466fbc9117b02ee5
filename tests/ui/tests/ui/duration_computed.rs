use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", ttl = Duration::from_secs(5))]
async fn purchase(id: u64, quantity: u32) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
