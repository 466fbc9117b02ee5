use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(keys = ["account:<from>", "account:<to>", "account:<from>"])]
async fn purchase(from: u64, to: u64) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
