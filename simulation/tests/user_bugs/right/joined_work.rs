//! The body waits for what it has spawned, which presents the fencing token.

use dlock_runtime::distributed_lock;

use crate::user_bugs::shop::{self, Database, Failed};

#[distributed_lock(key = "product:7", ttl = "1s", wait = "3s", backend = "redis", guard = lock)]
async fn purchase(database: &Database) -> Result<(), Failed> {
    let token = lock.fencing_token();
    let database = database.clone();
    let work = tokio::spawn(async move {
        let left = shop::read(&database, token).await?;
        shop::sell(&database, left - 1, token).await
    });
    work.await?
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, _| async move { purchase(&database).await.ok() })
        .await;
    shop::check(&database);
}
