//! A purchase under a lock: reads and writes present the fencing token.

use dlock_runtime::distributed_lock;

use crate::user_bugs::shop::{self, Database, Failed};

#[distributed_lock(key = "product:7", ttl = "1s", wait = "3s", backend = "redis", guard = lock)]
async fn purchase(database: &Database) -> Result<(), Failed> {
    let token = lock.fencing_token();
    let read = move |product: &mut shop::Product| product.fence(token).map(|()| product.left);
    let left = database.call("read the stock", read).await??;
    if left > 0 {
        let write =
            move |product: &mut shop::Product| product.fence(token).map(|()| product.sell(left - 1));
        database.call("write the stock", write).await??;
    }
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, |_| {
        let database = database.clone();
        async move { purchase(&database).await.ok() }
    })
    .await;
    shop::check(&database);
}
