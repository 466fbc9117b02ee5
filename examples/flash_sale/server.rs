//! One server of the shop. It waits for the sale to open and serves all its customers concurrently.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use dlock_runtime::{Registry, backend::Backend};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::event::{Command, Event, Teller, Told};
use crate::shop::{Shop, purchase, purchase_unlocked, ttl};
use crate::store::Store;

/// Instructions for a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Duty {
    pub server: usize,
    pub backend: String,
    pub store: PathBuf,
    pub stock: u64,
    pub customers: std::ops::Range<u32>,
    pub locked: bool,
}

/// Serves until all customers are done.
pub async fn serve(
    duty: Duty,
    registry: Registry,
    mut commands: mpsc::UnboundedReceiver<Command>,
    out: mpsc::UnboundedSender<Told>,
) -> Result<()> {
    let shop = Arc::new(Shop {
        server: duty.server,
        // Each run has an item of its own, so that runs on one backend do not collide.
        item: duty.store.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        store: Store::open(duty.store, duty.stock)?,
        teller: Teller::new(out),
    });
    shop.teller.tell(Event::Ready);
    while let Some(command) = commands.recv().await {
        match command {
            Command::Open => break,
            Command::Linger => shop.teller.linger_next(),
            Command::Freeze(_) => {}
        }
    }
    let listener = tokio::spawn(listen(Arc::clone(&shop), commands));
    let mut customers = JoinSet::new();
    for customer in duty.customers {
        let (shop, registry) = (Arc::clone(&shop), registry.clone());
        customers.spawn(async move {
            // A spawned task does not inherit the registry's scope. It needs its own, or an
            // installed registry.
            let bought = registry.scope(async {
                if duty.locked {
                    purchase(&shop, customer).await
                } else {
                    purchase_unlocked(&shop, customer).await
                }
            });
            if let Err(crate::shop::ShopError::Lock(_) | crate::shop::ShopError::Store(_)) =
                bought.await
            {
                shop.teller.tell(Event::Failed { customer });
            }
        });
    }
    while customers.join_next().await.is_some() {}
    listener.abort();
    // Wait for releases that are still under way before the process exits.
    registry.shutdown(Duration::from_secs(5)).await?;
    shop.teller.tell(Event::Done);
    Ok(())
}

async fn listen(shop: Arc<Shop>, mut commands: mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Open => {}
            Command::Linger => shop.teller.linger_next(),
            // Blocking is intended: it stops the whole runtime of this server, as SIGSTOP stops a
            // process.
            Command::Freeze(millis) => std::thread::sleep(Duration::from_millis(millis)),
        }
    }
}

/// The registry of one server on this backend.
pub fn registry(backend: impl Backend) -> Result<Registry> {
    let ttl = ttl(&backend);
    Ok(Registry::builder().backend("shop", backend).default_ttl(ttl).build()?)
}
