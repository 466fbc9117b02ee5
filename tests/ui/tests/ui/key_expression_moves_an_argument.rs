use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = name)]
async fn purchase(name: String) -> Result<usize, LockError> {
    Ok(name.len())
}

fn main() {}
