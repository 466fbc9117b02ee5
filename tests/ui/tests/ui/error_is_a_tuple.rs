use dlock_runtime::distributed_lock;

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64) -> Result<u64, (u16, String)> {
    Err((404, id.to_string()))
}

fn main() {}
