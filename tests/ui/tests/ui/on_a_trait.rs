use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "shop")]
trait Shop {
    fn close(&self) -> impl Future<Output = Result<(), LockError>>;
}

fn main() {}
