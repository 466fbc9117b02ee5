//! Writes present the fencing token, but reads do not: a late write may come between the read and the write of the next
//! holder.

use dlock_runtime::distributed_lock;
use dlock_runtime::sim::Remote;

use crate::user_bugs::shop::{self, Database, Failed, Product};

type Provider = Remote<u32>;

#[distributed_lock(key = "product:7", ttl = "1s", wait = "3s", backend = "redis", guard = lock)]
async fn purchase(database: &Database, provider: &Provider) -> Result<(), Failed> {
    let token = lock.fencing_token();
    let left = database.call("read the stock", |product| product.left).await?;
    provider.call("charge 20", |charged| *charged += 20).await?;
    let write = move |product: &mut Product| product.fence(token).map(|()| product.sell(left - 1));
    database.call(format!("write the stock with token {token}"), write).await??;
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    let provider = Remote::new("payment provider", 0);
    shop::on_servers(3, &database, |database, _| {
        let provider = provider.clone();
        async move { purchase(&database, &provider).await.ok() }
    })
    .await;
    shop::check(&database);
}
