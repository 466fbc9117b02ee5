//! A service with its locks in its own configuration.
//!
//! ```text
//! cargo run -p example-configuration
//! DLOCK_BACKEND_STOCK=sqlite:stock.db cargo run -p example-configuration
//! ```
//!
//! The file holds the defaults; environment variables override it on one machine. When the service starts,
//! every annotated function is checked against the result.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Parser;
use dlock_runtime::config::Config;
use dlock_runtime::{LockGuard, Registry, distributed_lock};
use serde::Deserialize;

/// Sells one item, with locks configured in a file that environment variables override
#[derive(Debug, Parser)]
struct Options {
    /// The service's configuration
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/shop.toml"))]
    config: PathBuf,
}

/// The service's configuration.
#[derive(Debug, Deserialize)]
struct ShopConfig {
    greeting: String,
    locks: Config,
}

#[distributed_lock(key = "product:<id>", guard = lock)]
async fn purchase(id: u64) -> Result<String> {
    Ok(sold(lock, id))
}

fn sold(lock: &LockGuard, id: u64) -> String {
    format!(
        "sold product {id} under `{}`, with {:.0?} left of the lease",
        lock.key(),
        lock.remaining()
    )
}

fn read(path: &Path) -> Result<ShopConfig> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| anyhow!("{shown}: {error}"))?;
    // The error's full text quotes the line, and a password in it.
    toml::from_str(&text).map_err(|error| anyhow!("{shown}: {}", error.message()))
}

async fn start(options: &Options) -> Result<Registry> {
    let config = read(&options.config)?;
    println!("{}", config.greeting);
    let locks = config.locks.overridden_by(Config::from_env()?);
    println!("locks: {:?}", locks.backends);
    Ok(locks.connect().await?.install()?)
}

async fn run(options: &Options) -> Result<()> {
    let registry = start(options).await?;
    for site in Registry::sites() {
        println!("checked: {site}");
    }
    println!("{}", purchase(7).await?);
    registry.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("configuration: {error}");
            ExitCode::FAILURE
        }
    }
}
