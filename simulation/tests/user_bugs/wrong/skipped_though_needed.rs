//! `on_busy = "skip"` on a function that has to do its work: its caller is told that it did.

use dlock_runtime::distributed_lock;
use dlock_runtime::sim::Remote;

use crate::user_bugs::shop::{self, Failed};

#[distributed_lock(
    key = "account:1",
    ttl = "1s",
    wait = "100ms",
    on_busy = "skip",
    backend = "redis"
)]
async fn deposit(account: &Remote<usize>) -> Result<(), Failed> {
    account.call("deposit 1", |balance| *balance += 1).await?;
    Ok(())
}

pub async fn scenario() {
    let account = Remote::new("bank", 0);
    let serve = |account, _| async move { deposit(&account).await };
    let results = shop::on_servers(3, &account, serve).await;
    let deposited = results.iter().filter(|result| result.is_ok()).count();
    let balance = account.peek(|balance| *balance);
    assert!(balance >= deposited, "{deposited} deposits were confirmed, the balance is {balance}");
}
