use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", on_busy = "skip")]
async fn purchase(id: u64) -> Result<Receipt, LockError> {
    Ok(Receipt)
}

struct Receipt;

fn main() {}
