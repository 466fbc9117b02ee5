use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64) -> impl Future<Output = Result<u64, LockError>> {
    async move { Ok(id) }
}

fn main() {}
