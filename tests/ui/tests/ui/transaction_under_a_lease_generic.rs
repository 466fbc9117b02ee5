use dlock_runtime::{LockError, distributed_lock};

struct Shop;

impl Shop {
    #[distributed_lock(key = "product:<id>")]
    async fn purchase<'c, DB: sqlx::Database>(
        &self,
        tx: &mut sqlx::Transaction<'c, DB>,
        id: u64,
    ) -> Result<(), LockError> {
        let _ = (id, tx);
        Ok(())
    }
}

fn main() {}
