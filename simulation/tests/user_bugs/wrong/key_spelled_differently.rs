//! Two functions change the same stock under keys that are spelled differently.

use dlock_runtime::distributed_lock;

use crate::user_bugs::shop::{self, Database, Failed};

#[distributed_lock(key = "product:<id>", ttl = "1s", wait = "2s", backend = "redis")]
async fn purchase(database: &Database, id: u64) -> Result<(), Failed> {
    let left = database.call("read the stock", |product| product.left).await?;
    database.call("sell one", move |product| product.sell(left - 1)).await?;
    Ok(())
}

#[distributed_lock(key = "products:<id>", ttl = "1s", wait = "2s", backend = "redis")]
async fn take_back(database: &Database, id: u64) -> Result<(), Failed> {
    let (left, sold) =
        database.call("read the stock", |product| (product.left, product.sold)).await?;
    if sold > 0 {
        database.call("take one back", move |product| product.take_back(left + 1)).await?;
    }
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, number| async move {
        purchase(&database, 7).await.ok();
        if number == 0 {
            take_back(&database, 7).await.ok();
        }
    })
    .await;
    shop::check(&database);
}
