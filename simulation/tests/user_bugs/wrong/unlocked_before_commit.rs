//! The locked function prepares the change. Its caller commits it, after the lock was released.

use dlock_runtime::distributed_lock;

use crate::user_bugs::shop::{self, Database, Failed};

/// What will be committed.
struct Sale {
    left: u32,
}

#[distributed_lock(key = "product:7", ttl = "1s", wait = "2s", backend = "redis")]
async fn prepare(database: &Database) -> Result<Sale, Failed> {
    let left = database.call("read the stock", |product| product.left).await?;
    Ok(Sale { left: left - 1 })
}

async fn purchase(database: &Database) -> Result<(), Failed> {
    let sale = prepare(database).await?;
    database.call("commit", move |product| product.sell(sale.left)).await?;
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, _| async move { purchase(&database).await.ok() })
        .await;
    shop::check(&database);
}
