use dlock_runtime::distributed_lock;

#[derive(Debug)]
enum ShopError {
    SoldOut,
}

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64) -> Result<u64, ShopError> {
    if id == 0 {
        return Err(ShopError::SoldOut);
    }
    Ok(id)
}

fn main() {}
