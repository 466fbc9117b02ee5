use dlock_runtime::distributed_lock;

#[distributed_lock(
    key = "product:<idd>:{quantity}",
    tll = "5s",
    wait = 3,
    renew = "yes",
    on_lost = "finsh",
    guard = quantity
)]
async fn purchase(id: u64, quantity: u32) -> u32 {
    quantity
}

fn main() {}
