use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(ttl = "5s")]
async fn purchase(id: u64, quantity: u32) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
