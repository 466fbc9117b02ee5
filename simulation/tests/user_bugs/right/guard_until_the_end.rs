//! The guard lives until the work is done, and is released after it.

use dlock_runtime::Registry;

use crate::user_bugs::shop::{self, Database, Failed};

async fn purchase(database: &Database) -> Result<(), Failed> {
    let locks = Registry::current().expect("installed at startup");
    let guard = locks.lock("product:7").acquire().await?;
    let token = guard.fencing_token();
    let left = shop::read(database, token).await?;
    shop::sell(database, left - 1, token).await?;
    guard.release().await?;
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, _| async move { purchase(&database).await.ok() })
        .await;
    shop::check(&database);
}
