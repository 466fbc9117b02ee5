use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64) -> Result<(), LockError> {
    println!("{id}");
}

fn main() {}
