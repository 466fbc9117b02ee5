use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "report", on_busy = "skip", fair = true)]
async fn report() -> Result<(), LockError> {
    Ok(())
}

fn main() {}
