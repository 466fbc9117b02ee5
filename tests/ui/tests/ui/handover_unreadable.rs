use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", handover = "64")]
async fn without_a_time(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", handover = "many in 10ms")]
async fn without_a_number(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", handover = "0 in 10ms")]
async fn never(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", handover = "5000 in 10ms")]
async fn too_often(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", handover = "64 in 10")]
async fn without_a_unit(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", handover = "64 in 1h")]
async fn too_long(id: u64) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "product:<id>", handover = false)]
async fn not_quoted(id: u64) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
