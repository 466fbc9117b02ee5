//! The body spawns the write and does not wait for it, so that it happens after the release.

use dlock_runtime::distributed_lock;

use crate::user_bugs::shop::{self, Database, Failed};

#[distributed_lock(key = "product:7", ttl = "1s", wait = "2s", backend = "redis")]
async fn purchase(database: &Database) -> Result<(), Failed> {
    let left = database.call("read the stock", |product| product.left).await?;
    let database = database.clone();
    tokio::spawn(async move {
        database.call("write the stock", move |product| product.sell(left - 1)).await
    });
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, _| async move { purchase(&database).await.ok() })
        .await;
    shop::check(&database);
}
