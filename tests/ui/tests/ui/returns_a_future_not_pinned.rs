use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>")]
fn purchase(id: u64) -> Box<dyn Future<Output = Result<u64, LockError>> + Send> {
    Box::new(async move { Ok(id) })
}

fn main() {}
