//! A service that shows what its locks do: metrics for Prometheus, logs, and which function makes the others wait.
//!
//! ```text
//! cargo run --release -p example-observability
//! curl http://127.0.0.1:9000/metrics
//! ```
//!
//! Customers buy products, and each purchase holds the product's lock for a few milliseconds. Beside them, the nightly
//! inventory counts the same products, and holds each lock for a second and a half. Every few seconds the service
//! prints for whom its calls waited: nearly always for the inventory.

mod report;
mod shop;
mod telemetry;
mod traffic;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use dlock_runtime::Registry;
use tokio::time::{Instant, interval_at, sleep};

use crate::shop::Shop;

/// Runs a shop, and shows what its locks do.
#[derive(Debug, Parser)]
struct Options {
    /// Where the locks live: sqlite:path, redis://host:port/, …
    #[arg(long, value_name = "URL")]
    backend: Option<String>,
    /// Where Prometheus reads the metrics; with port 0, at a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// How long the shop is open; until Ctrl-C if not set
    #[arg(long)]
    seconds: Option<u64>,
    /// How long the metrics can be read after the shop has closed, so that Prometheus reads the last values
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    linger: u64,
    /// The time between two reports, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    report_every: u64,
    /// Where the folded stacks are written
    #[arg(long, value_name = "FILE", default_value = "target/blame.folded")]
    folded: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("observability: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    telemetry::show_logs();
    // Before the registry, which describes its metrics to the recorder that is there when it is built.
    let address = telemetry::serve_metrics(options.listen)?;
    println!("metrics: http://{address}/metrics");

    let folder = tempfile::tempdir().context("no temporary directory")?;
    let file = format!("sqlite:{}", folder.path().join("locks.db").display());
    let store = dlock_runtime::connect(options.backend.as_ref().unwrap_or(&file)).await?;
    let registry = Registry::builder().backend("shop", store).install()?;

    let shop = Arc::new(Shop::new());
    let traffic = traffic::begin(&shop);
    stay_open(options, &registry).await?;
    shop.close();
    // Nobody waits any more, so the last report has every wait in full.
    traffic.join_all().await;
    report(options, &registry)?;
    println!("{}", report::compare(&registry.contention(), shop.waited()));
    registry.shutdown(Duration::from_secs(5)).await?;
    println!("closed, and all locks are released");
    passed_or_interrupted(Some(options.linger)).await
}

/// Reports now and then, until it is time to close.
async fn stay_open(options: &Options, registry: &Registry) -> Result<()> {
    let every = Duration::from_secs(options.report_every);
    let mut reports = interval_at(Instant::now() + every, every);
    let closing = passed_or_interrupted(options.seconds);
    tokio::pin!(closing);
    loop {
        tokio::select! {
            closed = &mut closing => return closed,
            _ = reports.tick() => report(options, registry)?,
        }
    }
}

/// Waits for so many seconds, or for ever, but only until Ctrl-C.
async fn passed_or_interrupted(seconds: Option<u64>) -> Result<()> {
    let passed = async {
        match seconds {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = passed => Ok(()),
        pressed = tokio::signal::ctrl_c() => pressed.context("Ctrl-C cannot be noticed"),
    }
}

/// Prints for whom calls have waited until now, and writes the same for tools that draw flame graphs.
fn report(options: &Options, registry: &Registry) -> Result<()> {
    let contention = registry.contention();
    println!("\n{}", report::table(&contention));
    let file = &options.folded;
    let shown = file.display();
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| shown.to_string())?;
    }
    std::fs::write(file, contention.folded()).with_context(|| shown.to_string())?;
    println!("folded stacks: {shown}");
    Ok(())
}
