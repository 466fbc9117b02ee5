//! One of the processes that move money.

use std::time::Duration;

use anyhow::Result;
use dlock_runtime::{Registry, distributed_lock};
use serde::{Deserialize, Serialize};

use crate::bank::Bank;

/// Instructions for one process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) bank: String,
    pub(crate) backend: String,
    pub(crate) locked: bool,
    pub(crate) accounts: usize,
    pub(crate) transfers: usize,
}

#[distributed_lock(keys = ["account:<from>", "account:<to>"], ttl = "10s", wait = "1m")]
async fn transfer(bank: &Bank, from: u32, to: u32, amount: i64) -> Result<()> {
    move_money(bank, from, to, amount).await
}

/// Reads, waits, and writes. A write by another process in between is overwritten.
async fn move_money(bank: &Bank, from: u32, to: u32, amount: i64) -> Result<()> {
    let (source, target) = (bank.balance(from).await?, bank.balance(to).await?);
    tokio::time::sleep(Duration::from_millis(2)).await;
    bank.set_balance(from, source - amount).await?;
    bank.set_balance(to, target + amount).await
}

pub(crate) async fn serve(plan: &str) -> Result<()> {
    let plan: Plan = serde_json::from_str(plan)?;
    let bank = Bank::open(&plan.bank).await?;
    let store = dlock_runtime::connect(&plan.backend).await?;
    let registry = Registry::builder().backend("locks", store).install()?;
    let accounts = u32::try_from(plan.accounts)?;
    for _ in 0..plan.transfers {
        let from = rand::random_range(0..accounts);
        let to = (from + rand::random_range(1..accounts)) % accounts;
        let amount = rand::random_range(1..100);
        if plan.locked {
            transfer(&bank, from, to, amount).await?;
        } else {
            move_money(&bank, from, to, amount).await?;
        }
    }
    registry.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
