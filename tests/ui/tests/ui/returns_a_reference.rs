use dlock_runtime::distributed_lock;

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: &str) -> &str {
    id
}

fn main() {}
