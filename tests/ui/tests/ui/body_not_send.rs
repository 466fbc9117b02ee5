use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64) -> Result<u64, LockError> {
    let shared = std::rc::Rc::new(id);
    std::future::ready(()).await;
    Ok(*shared)
}

fn assert_send(_: impl Send) {}

fn main() {
    assert_send(purchase(1));
}
