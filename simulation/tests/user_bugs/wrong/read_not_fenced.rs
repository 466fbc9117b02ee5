//! Writes present the fencing token, but reads do not: a late write may come between the read and the write of the next
//! holder.

use dlock_runtime::distributed_lock;

use crate::user_bugs::shop::{self, Database, Failed};

#[distributed_lock(key = "product:7", ttl = "1s", wait = "3s", backend = "redis", guard = lock)]
async fn purchase(database: &Database) -> Result<(), Failed> {
    let token = lock.fencing_token();
    let left = database.call("read the stock", |product| product.left).await?;
    if left > 0 {
        let write = move |product: &mut shop::Product| {
            product.fence(token).map(|()| product.sell(left - 1))
        };
        database.call(format!("write the stock with token {token}"), write).await??;
    }
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, _| async move { purchase(&database).await.ok() }).await;
    shop::check(&database);
}
