#![deny(unreachable_code)]

use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", guard = _lock)]
async fn purchase(id: u64) -> Result<u64, LockError> {
    todo!("{id}")
}

fn main() {
    let _ = purchase(1);
}
