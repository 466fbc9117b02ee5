//! The body goes on after its lease was lost, and its write presents no token.

use std::time::Duration;

use dlock_runtime::distributed_lock;

use crate::user_bugs::shop::{self, Database, Failed};

#[distributed_lock(key = "product:7", ttl = "1s", wait = "3s", on_lost = "keep", backend = "redis")]
async fn purchase(database: &Database) -> Result<(), Failed> {
    let left = database.call("read the stock", |product| product.left).await?;
    // Prints the label.
    tokio::time::sleep(Duration::from_millis(400)).await;
    database.call("write the stock", move |product| product.sell(left - 1)).await?;
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, _| async move { purchase(&database).await.ok() })
        .await;
    shop::check(&database);
}
