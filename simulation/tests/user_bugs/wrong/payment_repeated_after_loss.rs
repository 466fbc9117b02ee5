//! A payment is tried again after the lease was lost, although the first attempt may have charged the card.

use dlock_runtime::sim::Remote;
use dlock_runtime::{LockError, distributed_lock};

use crate::user_bugs::shop::{self, Failed};

/// The orders that were charged.
type Provider = Remote<Vec<usize>>;

#[distributed_lock(key = "order:<order>", ttl = "1s", wait = "3s", backend = "redis")]
async fn pay(provider: &Provider, order: usize) -> Result<(), Failed> {
    provider.call(format!("charge order {order}"), move |charged| charged.push(order)).await?;
    Ok(())
}

async fn checkout(provider: &Provider, order: usize) -> Result<(), Failed> {
    loop {
        match pay(provider, order).await {
            Err(error) if matches!(error.downcast_ref(), Some(LockError::Lost { .. })) => {}
            result => return result,
        }
    }
}

pub async fn scenario() {
    let provider = Remote::new("payment provider", Vec::new());
    let serve = |provider, order| async move { checkout(&provider, order).await };
    shop::on_servers(3, &provider, serve).await;
    provider.peek(|charged| {
        for order in 0..3 {
            let times = charged.iter().filter(|charged| **charged == order).count();
            assert!(times < 2, "order {order} was charged {times} times");
        }
    });
}
