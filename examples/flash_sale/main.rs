//! A shop that never oversells. Several server processes sell the same few items at once: first
//! without a lock, then with it, then with one server killed and another paused in the middle of a
//! purchase.
//!
//! ```text
//! cargo run --release -p examples --example flash_sale
//! cargo run --release -p examples --example flash_sale -- --backend redis://127.0.0.1/
//! ```
//!
//! Start reading in `shop.rs`, which has the annotated function.

mod event;
mod fleet;
mod options;
mod report;
mod sale;
mod server;
mod shop;
mod store;
mod timeline;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use dlock_runtime::backend::Memory;
use dlock_runtime::{Backend, BackendError};

use crate::options::Options;
use crate::sale::{Kind, Plan, Sale};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let ended = if arguments.next().as_deref() == Some(fleet::SERVE) {
        fleet::serve_as_process(&arguments.next().unwrap_or_default()).await.map(|()| true)
    } else {
        run().await
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // A backend error already includes its causes.
            match error.downcast_ref::<BackendError>() {
                Some(error) => eprintln!("flash_sale: {error}"),
                None => eprintln!("flash_sale: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

/// Returns true if both runs with the lock sold exactly the stock.
async fn run() -> Result<bool> {
    let Some(options) = Options::from_arguments()? else { return Ok(true) };
    // Before the sale, so that no work is lost if the file cannot be written.
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

/// The URL without its password, for the report.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}{}", &url[..scheme + 3], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}
