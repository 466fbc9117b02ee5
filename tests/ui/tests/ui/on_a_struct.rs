use dlock_runtime::distributed_lock;

#[distributed_lock(key = "shop")]
struct Shop;

fn main() {}
