//! Transfers between accounts. Each needs two locks, and two transfers may need the same two in
//! opposite order.
//!
//! ```text
//! cargo run --release -p example-bank-transfer
//! ```
//!
//! Eight processes move money between fifty accounts at random. Each transfer reads two balances,
//! waits for a moment, and writes both back. Without a lock, money appears and disappears. With one
//! lock acquired after the other, the first two transfers in opposite directions could wait for
//! each other forever. `keys = […]` acquires both locks, all or none and in a canonical order, so
//! this cannot happen.

mod bank;
mod teller;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::bank::Bank;
use crate::teller::Plan;

/// Moves money between accounts from several processes at once.
#[derive(Debug, Parser)]
struct Options {
    /// Where the locks live: sqlite:path, redis://host:port/, …
    #[arg(long, value_name = "URL")]
    backend: Option<String>,
    #[arg(long, default_value_t = 8)]
    processes: usize,
    #[arg(long, default_value_t = 50)]
    accounts: usize,
    /// How many transfers each process makes
    #[arg(long, default_value_t = 50)]
    transfers: usize,
    /// Instructions for a child process; not meant for users
    #[arg(long, hide = true)]
    plan: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.plan {
        Some(plan) => teller::serve(plan).await,
        None => run(&options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bank_transfer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    ensure!(options.accounts >= 2, "a transfer needs two accounts: --accounts 2 or more");
    let folder = tempfile::tempdir().context("no temporary directory")?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let backend = options.backend.clone().unwrap_or_else(|| format!("sqlite:{}", file("locks.db")));
    println!("{} processes, {} accounts", options.processes, options.accounts);
    for locked in [false, true] {
        let bank = Bank::found(&file(&format!("bank-{locked}.db")), options.accounts).await?;
        let before = bank.total().await?;
        let began = Instant::now();
        let plan = Plan {
            bank: bank.file().to_owned(),
            backend: backend.clone(),
            locked,
            accounts: options.accounts,
            transfers: options.transfers,
        };
        let mut tellers = Vec::new();
        for _ in 0..options.processes {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--plan", &serde_json::to_string(&plan)?]);
            tellers.push(command.spawn().context("failed to start a process")?);
        }
        for teller in &mut tellers {
            ensure!(teller.wait()?.success(), "a process failed");
        }
        let (after, took) = (bank.total().await?, began.elapsed());
        let how = if locked { "with both accounts locked" } else { "without a lock" };
        println!("{how:<26} total {before} before, {after} after, in {took:.1?}");
        ensure!(!locked || before == after, "the total changed although both accounts were locked");
    }
    Ok(())
}
