use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<name>")]
async fn purchase(name: String) -> Result<usize, LockError> {
    drop(name);
    Ok(name.len())
}

fn main() {}
