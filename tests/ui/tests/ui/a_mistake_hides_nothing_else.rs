use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", ttl = "5", guard = lock)]
async fn purchase(id: u64) -> Result<u64, LockError> {
    println!("{}", lock.fencing_token());
    Ok(id)
}

async fn caller() -> Result<u64, LockError> {
    purchase(1).await
}

fn main() {
    let _ = caller();
}
