use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>")]
extern "C" fn purchase(id: u64) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
