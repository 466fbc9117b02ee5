use dlock_runtime::{LockError, distributed_lock};
use sqlx::{Postgres, Transaction};

struct Request<'a, 'c> {
    id: u64,
    tx: &'a mut Transaction<'c, Postgres>,
    customer: u64,
}

#[distributed_lock(key = "product:<id>", transaction = tx)]
async fn purchase(Request { id, tx, .. }: Request<'_, '_>) -> Result<(), LockError> {
    let _ = (id, tx);
    Ok(())
}

fn main() {}
