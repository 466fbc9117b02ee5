use dlock_runtime::{LockError, distributed_lock};

struct Order {
    lines: Vec<u64>,
}

#[distributed_lock(key = "order:<order.lines>")]
async fn purchase(order: Order) -> Result<usize, LockError> {
    Ok(order.lines.len())
}

fn main() {}
