use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "account:<from>")]
#[distributed_lock(key = "account:<to>")]
async fn transfer(from: u64, to: u64) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
