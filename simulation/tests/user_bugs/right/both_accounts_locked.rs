//! A transfer acquires the locks of both accounts together, and presents a token to each account.

use dlock_runtime::sim::{self, Remote};
use dlock_runtime::{FencingToken, LockGuard, distributed_lock};

use crate::user_bugs::shop::{self, Failed, Stale};

#[derive(Debug, Default)]
struct Account {
    balance: i64,
    newest: Option<FencingToken>,
}

impl Account {
    fn fence(&mut self, token: FencingToken) -> Result<i64, Stale> {
        if self.newest > Some(token) {
            return Err(Stale);
        }
        self.newest = Some(token);
        Ok(self.balance)
    }
}

type Bank = Remote<[Account; 3]>;

#[distributed_lock(
    keys = ["account:<from>", "account:<to>"],
    ttl = "1s",
    wait = "5s",
    backend = "redis",
    guard = locks
)]
async fn transfer(bank: &Bank, from: usize, to: usize) -> Result<(), Failed> {
    let token =
        |at: usize| locks.get(&format!("account:{at}").into()).map(LockGuard::fencing_token);
    let (Some(one), Some(other)) = (token(from), token(to)) else { return Ok(()) };
    let read = move |accounts: &mut [Account; 3]| {
        Ok::<_, Stale>((accounts[from].fence(one)?, accounts[to].fence(other)?))
    };
    let (had, has) = bank.call("read both balances", read).await??;
    let write = move |accounts: &mut [Account; 3]| {
        accounts[from].fence(one)?;
        accounts[to].fence(other)?;
        accounts[from].balance = had - 10;
        accounts[to].balance = has + 10;
        Ok::<_, Stale>(())
    };
    bank.call(format!("move 10 from {from} to {to}"), write).await??;
    Ok(())
}

pub async fn scenario() {
    let bank = Remote::new("bank", [const { Account { balance: 100, newest: None } }; 3]);
    shop::on_servers(3, &bank, |bank, _| async move {
        let from = sim::random(3);
        transfer(&bank, from, (from + 1 + sim::random(2)) % 3).await
    })
    .await;
    let total: i64 = bank.peek(|accounts| accounts.iter().map(|account| account.balance).sum());
    assert_eq!(total, 300, "money was lost or made");
}
