use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "<TENANT>:<id>")]
async fn purchase(id: u64) -> Result<u64, LockError> {
    Ok(id)
}

fn main() {}
