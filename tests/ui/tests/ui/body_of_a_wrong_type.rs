use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64, stock: u32) -> Result<u32, LockError> {
    let left: u32 = "many";
    println!("{left} of {id}");
    Ok(stock.to_string())
}

fn main() {}
