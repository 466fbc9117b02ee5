use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<ids[0]>")]
async fn purchase(ids: Vec<u64>) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
