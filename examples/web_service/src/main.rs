//! A web service whose handlers run under locks.
//!
//! ```text
//! mkdir stock && echo 1 > stock/7
//! cargo run -p example-web-service
//! curl -X POST http://127.0.0.1:3000/products/7/purchase
//! ```
//!
//! Start it as often as you like, each time with another `LISTEN=127.0.0.1:0`: all processes share locks and stock. End it
//! with Ctrl-C or SIGTERM.

mod error;
mod shop;
#[cfg(test)]
mod tests;

use dlock_axum::shutdown_signal;
use dlock_runtime::Registry;
use tokio::net::TcpListener;

use crate::shop::{Shop, app};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let store = dlock_runtime::connect(&setting("LOCKS", "sqlite:locks.db")).await?;
    let locks = Registry::builder().backend("locks", store).install()?;

    let app = app(Shop::new(setting("STOCK", "stock")));
    let listener = TcpListener::bind(setting("LISTEN", "127.0.0.1:3000")).await?;
    println!("listening on {}", listener.local_addr()?);

    // At the first signal the service ends in order, at a second one at once.
    dlock_axum::serve(listener, app, &locks)
        .force_on(shutdown_signal())
        .until(shutdown_signal())
        .await?;
    Ok(())
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}
