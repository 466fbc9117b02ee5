use dlock_runtime::{LockError, distributed_lock};
use sqlx::{Postgres, Transaction};

struct Session<'c> {
    tx: Transaction<'c, Postgres>,
}

impl Session<'_> {
    #[distributed_lock(key = "product:<id>", transaction = self.tx)]
    async fn purchase(&mut self, id: u64) -> Result<(), LockError> {
        let _ = (id, &self.tx);
        Ok(())
    }
}

fn main() {}
