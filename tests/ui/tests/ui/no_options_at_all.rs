use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock]
async fn purchase(id: u64) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
