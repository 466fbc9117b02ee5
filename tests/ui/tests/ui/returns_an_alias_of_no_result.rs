use dlock_runtime::distributed_lock;

type Outcome = u64;

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64) -> Outcome {
    id
}

fn main() {}
