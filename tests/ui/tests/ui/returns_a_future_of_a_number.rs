use dlock_runtime::distributed_lock;

#[distributed_lock(key = "product:<id>")]
fn purchase(id: u64) -> impl Future<Output = u64> {
    async move { id }
}

fn main() {}
