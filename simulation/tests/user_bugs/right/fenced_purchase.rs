//! A purchase under a lock, whose reads and writes present the fencing token.

use dlock_runtime::distributed_lock;

use crate::user_bugs::shop::{self, Database, Failed};

#[distributed_lock(key = "product:7", ttl = "1s", wait = "3s", backend = "redis", guard = lock)]
async fn purchase(database: &Database) -> Result<(), Failed> {
    let token = lock.fencing_token();
    let left = shop::read(database, token).await?;
    if left > 0 {
        shop::sell(database, left - 1, token).await?;
    }
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, _| async move { purchase(&database).await.ok() })
        .await;
    shop::check(&database);
}
