use std::pin::Pin;

use dlock_runtime::distributed_lock;

#[distributed_lock(key = "product:<id>")]
fn purchase(id: u64) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move { id })
}

fn main() {}
