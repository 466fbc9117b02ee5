use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", map_err = to_text)]
async fn purchase(id: u64) -> Result<(), u16> {
    Ok(())
}

fn to_text(error: LockError) -> String {
    error.to_string()
}

fn main() {}
