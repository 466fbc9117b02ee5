use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", permits = 5_000_000_000)]
async fn purchase(id: u64, quantity: u32) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
