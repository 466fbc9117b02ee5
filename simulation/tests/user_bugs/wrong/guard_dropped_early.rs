//! `let _ =` drops the guard at once.

use dlock_runtime::Registry;

use crate::user_bugs::shop::{self, Database, Failed};

async fn purchase(database: &Database) -> Result<(), Failed> {
    let locks = Registry::current().expect("installed at startup");
    let _ = locks.lock("product:7").acquire().await?;
    let left = database.call("read the stock", |product| product.left).await?;
    database.call("write the stock", move |product| product.sell(left - 1)).await?;
    Ok(())
}

pub async fn scenario() {
    let database = shop::open();
    shop::on_servers(3, &database, |database, _| async move { purchase(&database).await.ok() })
        .await;
    shop::check(&database);
}
