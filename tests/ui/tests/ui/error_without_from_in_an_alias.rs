use dlock_runtime::distributed_lock;

type ShopResult<T> = Result<T, String>;

#[distributed_lock(key = "product:<id>", guard = lock)]
async fn purchase(id: u64) -> ShopResult<u64> {
    println!("{}", lock.key());
    Ok(id)
}

fn main() {}
