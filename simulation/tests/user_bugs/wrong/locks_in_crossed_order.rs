//! A transfer acquires the lock of the one account and then, nested in it, that of the other: two transfers in opposite
//! directions wait for each other.

use dlock_runtime::distributed_lock;
use dlock_runtime::sim::Remote;

use crate::user_bugs::shop::{self, Failed};

type Bank = Remote<[i64; 2]>;

#[distributed_lock(key = "account:<from>", ttl = "1s", wait = "2s", backend = "redis")]
async fn transfer(bank: &Bank, from: usize, to: usize) -> Result<(), Failed> {
    bank.call(format!("look at the balance of {from}"), move |accounts| accounts[from]).await?;
    into(bank, from, to).await
}

#[distributed_lock(key = "account:<to>", ttl = "1s", wait = "2s", backend = "redis")]
async fn into(bank: &Bank, from: usize, to: usize) -> Result<(), Failed> {
    bank.call(format!("move 10 from {from} to {to}"), move |accounts| {
        accounts[from] -= 10;
        accounts[to] += 10;
    })
    .await?;
    Ok(())
}

pub async fn scenario() {
    let bank = Remote::new("bank", [100, 100]);
    let serve = |bank, number: usize| async move { transfer(&bank, number, 1 - number).await };
    for transferred in shop::on_servers(2, &bank, serve).await {
        transferred.expect("nothing is wrong with the bank");
    }
}
