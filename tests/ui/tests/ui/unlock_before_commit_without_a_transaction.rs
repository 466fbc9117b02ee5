use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", unlock_before_commit = true)]
async fn purchase(id: u64) -> Result<(), LockError> {
    let _ = id;
    Ok(())
}

fn main() {}
