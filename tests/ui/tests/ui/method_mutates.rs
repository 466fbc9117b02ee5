use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "order:<lines.next().unwrap()>")]
async fn purchase(mut lines: std::vec::IntoIter<u64>) -> Result<u64, LockError> {
    Ok(lines.next().unwrap_or_default())
}

fn main() {}
