use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(keys = ["product:<id>", "stock"], handover = "off")]
async fn several(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", mode = "shared", handover = "64 in 10ms")]
async fn shared(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", permits = 3, handover = "64 in 10ms")]
async fn counted(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", fair = true, handover = "64 in 10ms")]
async fn in_order(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", min_hold = "1s", handover = "64 in 10ms")]
async fn kept(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", grace = "1s", handover = "64 in 10ms")]
async fn delayed(id: u64) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
