use dlock_runtime::{LockError, distributed_lock};

trait Shop {
    #[distributed_lock(key = "shop")]
    fn close(&self) -> impl Future<Output = Result<(), LockError>>;
}

fn main() {}
