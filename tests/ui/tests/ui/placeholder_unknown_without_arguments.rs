use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>")]
async fn purchase() -> Result<(), LockError> {
    Ok(())
}

fn main() {}
