use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", on_busy = "retry")]
async fn purchase(id: u64, quantity: u32) -> Result<(), LockError> {
    Ok(())
}

fn main() {}
