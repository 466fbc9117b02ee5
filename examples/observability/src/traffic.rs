//! What goes on in the shop: customers who buy, and an inventory that starts again as soon as it is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dlock_runtime::LockError;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::shop::{PRODUCTS, Shop};

const CUSTOMERS: u32 = 12;

/// Runs until the shop is closed.
pub(crate) fn begin(shop: &Arc<Shop>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..CUSTOMERS {
        tasks.spawn(buy(Arc::clone(shop)));
    }
    tasks.spawn(count(Arc::clone(shop)));
    tasks
}

/// A customer, who buys one item after another.
async fn buy(shop: Arc<Shop>) {
    while shop.is_open() {
        let called = Instant::now();
        let bought = shop.purchase(rand::random_range(0..PRODUCTS), called).await;
        finish(&shop, "purchase", called, bought);
        sleep(Duration::from_millis(rand::random_range(20..80))).await;
    }
}

/// The inventory, one product after another.
async fn count(shop: Arc<Shop>) {
    for id in (0..PRODUCTS).cycle().take_while(|_| shop.is_open()) {
        let called = Instant::now();
        let counted = shop.nightly_inventory(id, called).await;
        finish(&shop, "nightly_inventory", called, counted);
        sleep(Duration::from_millis(500)).await;
    }
}

/// A failed call does not end the service.
fn finish(shop: &Shop, function: &'static str, called: Instant, result: Result<(), LockError>) {
    let Err(error) = result else { return };
    // Without its lock the body has not begun, and has not noted how long the call waited.
    if matches!(error, LockError::Busy { .. } | LockError::Backend { .. }) {
        shop.note_wait(function, called);
    }
    tracing::warn!(%error, function, "failed");
}
