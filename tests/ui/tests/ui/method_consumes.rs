use dlock_runtime::{LockError, distributed_lock};

struct Order(String);

impl Order {
    fn into_id(self) -> String {
        self.0
    }
}

#[distributed_lock(key = "order:<order.into_id()>")]
async fn purchase(order: Order) -> Result<usize, LockError> {
    Ok(order.0.len())
}

fn main() {}
