use dlock_runtime::{LockError, distributed_lock};

struct Shop;

#[distributed_lock(key = "shop")]
impl Shop {
    async fn close(&self) -> Result<(), LockError> {
        Ok(())
    }
}

fn main() {}
