use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", guard = lock)]
async fn purchase(id: u64) -> Result<u64, LockError> {
    println!("{}", lock.fencing_tokn());
    Ok(idd)
}

fn main() {}
