//! The body goes on after its lease was lost, but its writes present the fencing token.

use std::time::Duration;

use dlock_runtime::{distributed_lock, sim};

use crate::user_bugs::shop::{self, Database, Failed};

#[distributed_lock(
    key = "product:7",
    ttl = "1s",
    wait = "3s",
    on_lost = "finish",
    backend = "redis",
    guard = lock
)]
async fn purchase(database: &Database) -> Result<(), Failed> {
    let token = lock.fencing_token();
    let left = shop::read(database, token).await?;
    // Prints the label.
    sim::sleep(Duration::from_millis(400)).await;
    shop::sell(database, left - 1, token).await
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, _| async move { purchase(&database).await.ok() })
        .await;
    shop::check(&database);
}
