//! The work takes longer than the lease, which is not renewed.

use std::time::Duration;

use dlock_runtime::distributed_lock;

use crate::user_bugs::shop::{self, Database, Failed};

#[distributed_lock(key = "product:7", ttl = "300ms", renew = false, wait = "3s", backend = "redis")]
async fn purchase(database: &Database) -> Result<(), Failed> {
    let left = database.call("read the stock", |product| product.left).await?;
    // Prints the label.
    tokio::time::sleep(Duration::from_millis(400)).await;
    database.call("write the stock", move |product| product.sell(left - 1)).await?;
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    let serve = |database, _| async move { purchase(&database).await };
    for purchased in shop::on_servers(2, &database, serve).await {
        purchased.expect("there is enough for everybody");
    }
}
