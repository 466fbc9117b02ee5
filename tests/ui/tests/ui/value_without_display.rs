use dlock_runtime::{LockError, distributed_lock};

struct ProductId(u64);

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: ProductId) -> Result<u64, LockError> {
    Ok(id.0)
}

fn main() {}
