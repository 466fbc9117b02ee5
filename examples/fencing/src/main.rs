//! Why a lease needs a fencing token: a holder that is paused beyond its lease resumes and writes a
//! stale value over the next holder's write.
//!
//! ```text
//! cargo run --release -p example-fencing
//! ```
//!
//! A second process acquires the lock, reads the stock and is stopped (SIGSTOP), as by a long
//! garbage collection or a migrating virtual machine. This process waits until that lease expires,
//! acquires the lock, sells an item, and resumes the second process. The first run uses a plain
//! write, the second a fenced one. Only the statement that writes differs.

mod holder;
mod shop;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use dlock_runtime::Registry;

use crate::holder::Holder;
use crate::shop::{Shop, sell};

/// Shows a stale write, and how a fencing token stops it.
#[derive(Debug, Parser)]
struct Options {
    /// Where the lock lives: sqlite:path, redis://host:port/, …
    #[arg(long, value_name = "URL")]
    backend: Option<String>,
    /// Instructions for the second process; not meant for users
    #[arg(long, hide = true)]
    hold: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.hold {
        Some(order) => holder::serve(order).await,
        None => run(&options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fencing: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary directory")?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let backend = options.backend.clone().unwrap_or_else(|| format!("sqlite:{}", file("locks.db")));
    for fenced in [false, true] {
        println!("{}", if fenced { "\nwith a fencing token" } else { "without a fencing token" });
        let shop = Shop::open(&file(&format!("shop-{fenced}.db")), fenced).await?;
        sell_twice(&backend, shop).await?;
    }
    Ok(())
}

async fn sell_twice(backend: &str, shop: Shop) -> Result<()> {
    let store = dlock_runtime::connect(backend).await?;
    let registry = Registry::builder().backend("locks", store).build()?;
    println!("  stock                              {}", shop.stock().await?);

    let mut holder = Holder::start(backend, &shop)?;
    println!("  another process locks, then reads  {}", holder.says()?);
    holder.pause()?;

    let left = registry.scope(sell(&shop, &mut async || Ok(()))).await?;
    println!("  lease expired, this process sold 1 {left}");

    holder.resume()?;
    println!("  the other process resumed and      {}", holder.says()?);
    holder.finish()?;
    println!("  stock after two sales              {}", shop.stock().await?);
    registry.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}
