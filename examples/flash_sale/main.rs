//! A shop that never oversells: several server processes sell the same few items at once, first
//! without a lock, then with it, then with a server killed and another paused in mid-purchase.
//!
//! ```text
//! cargo run --release -p examples --example flash_sale
//! cargo run --release -p examples --example flash_sale -- --backend redis://127.0.0.1/
//! ```
//!
//! Begin with `shop.rs`: the annotated function is there.

mod event;
mod fleet;
mod report;
mod sale;
mod server;
mod shop;
mod store;
mod timeline;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use dlock_runtime::backend::Memory;
use dlock_runtime::{Backend, BackendError};

use crate::sale::{FEWEST_FOR_A_CRASH, Kind, Plan, Sale};

/// Sells a few items to many customers through several servers at once.
#[derive(Debug, Parser)]
struct Options {
    /// Where the locks live: sqlite:path, redis://host:port/, redis+cluster://…, redis+sentinel://…,
    /// redlock://…, memory: (servers are threads then); postgres://, mysql://, zookeeper:// and etcd://
    /// with the features of these names
    #[arg(long, value_name = "URL")]
    backend: Option<String>,
    /// Items in stock
    #[arg(short = 'S', long, default_value_t = 50)]
    stock: u64,
    /// Server processes
    #[arg(short = 'P', long, default_value_t = 4)]
    servers: usize,
    /// Customers in all
    #[arg(short = 'C', long, default_value_t = 200)]
    customers: u32,
    /// Where to write the picture of the timeline
    #[arg(long, value_name = "FILE", default_value = "target/flash_sale.svg")]
    svg: PathBuf,
    /// End with one line of JSON on standard output
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let ended = if arguments.next().as_deref() == Some(fleet::SERVE) {
        fleet::serve_as_process(&arguments.next().unwrap_or_default()).await.map(|()| true)
    } else {
        run(&Options::parse()).await
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // A backend's error tells its causes itself.
            match error.downcast_ref::<BackendError>() {
                Some(error) => eprintln!("flash_sale: {error}"),
                None => eprintln!("flash_sale: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

/// True if both runs with the lock sold exactly the stock.
async fn run(options: &Options) -> Result<bool> {
    options.check()?;
    // Before the work, so that nothing is lost when it cannot be written.
    options.prepare_picture().with_context(|| format!("cannot write {}", options.svg.display()))?;
    let folder = tempfile::tempdir().context("no temporary directory")?;
    let backend = match &options.backend {
        Some(url) => url.clone(),
        None => format!("sqlite:{}", folder.path().join("locks.db").display()),
    };
    let connected = dlock_runtime::connect(&backend).await?;
    let memory = (!connected.capabilities().shared_by_processes).then(Memory::new);
    let ttl = shop::ttl(&connected);
    drop(connected);
    let plan = Plan {
        backend: &backend,
        memory: memory.as_ref(),
        ttl,
        servers: options.servers,
        customers: options.customers,
        stock: options.stock,
        folder: folder.path(),
    };
    let mut sales = Vec::new();
    for kind in [Kind::WithoutLock, Kind::WithLock, Kind::WithCrash] {
        sales.push(show(&plan, kind).await?);
    }
    eprint!("\n{}", report::table(&sales));
    timeline::draw(&options.svg, &sales)?;
    eprintln!("timeline: {}", options.svg.display());
    if options.json {
        println!("{}", report::json(&without_password(&backend), options.stock, &sales));
    }
    Ok(report::is_exact(&sales))
}

impl Options {
    fn check(&self) -> Result<()> {
        if self.stock == 0 || self.servers == 0 || self.customers == 0 {
            bail!("stock, servers and customers must be at least 1");
        }
        if self.servers > 64 || self.customers > 10_000 {
            bail!("at most 64 servers and 10000 customers: this is an example, not a load test");
        }
        // One server is killed with its customers; the rest must still want the whole stock.
        let servers = self.servers.max(FEWEST_FOR_A_CRASH) as u64;
        let left = u64::from(self.customers) * (servers - 1) / servers;
        if left <= self.stock + servers {
            bail!(
                "{} customers are too few for a stock of {}: when one of {servers} servers is killed, more than the stock must be left",
                self.customers,
                self.stock
            );
        }
        Ok(())
    }
}

impl Options {
    fn prepare_picture(&self) -> std::io::Result<()> {
        if let Some(parent) = self.svg.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::File::create(&self.svg).map(|_| ())
    }
}

async fn show(plan: &Plan<'_>, kind: Kind) -> Result<Sale> {
    let live = std::io::stderr().is_terminal();
    let name = kind.name().replace('_', " ");
    if live {
        eprint!("{name:<13} …");
    }
    let sale = sale::hold(plan, kind, |done| {
        if live && done.is_multiple_of(5) {
            eprint!("\r{name:<13} … {done} of {} customers", plan.customers);
            let _ = std::io::stderr().flush();
        }
    })
    .await?;
    let clear = if live { "\r\x1b[K" } else { "" };
    eprintln!("{clear}{name:<13} … sold {} of {}", sale.sold, sale.stock);
    Ok(sale)
}

/// A URL for the report.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}{}", &url[..scheme + 3], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}
