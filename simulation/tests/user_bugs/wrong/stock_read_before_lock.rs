//! The stock is read before the lock is acquired.

use dlock_runtime::distributed_lock;

use crate::user_bugs::shop::{self, Database, Failed};

async fn purchase(database: &Database) -> Result<(), Failed> {
    let left = database.call("read the stock", |product| product.left).await?;
    if left > 0 {
        take_one(database, left).await?;
    }
    Ok(())
}

#[distributed_lock(key = "product:7", ttl = "1s", wait = "2s", backend = "redis")]
async fn take_one(database: &Database, left: u32) -> Result<(), Failed> {
    database.call("write the stock", move |product| product.sell(left - 1)).await?;
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, _| async move { purchase(&database).await.ok() })
        .await;
    shop::check(&database);
}
