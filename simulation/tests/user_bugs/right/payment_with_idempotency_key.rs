//! A payment that is tried again names its order, so that the provider charges it once.

use std::collections::BTreeMap;

use dlock_runtime::distributed_lock;
use dlock_runtime::sim::{self, Remote};

use crate::user_bugs::shop::{self, Failed};

#[derive(Debug, Default)]
struct Provider {
    /// By idempotency key.
    charges: BTreeMap<usize, u32>,
    total: u32,
}

impl Provider {
    fn charge(&mut self, key: usize, amount: u32) {
        if self.charges.insert(key, amount).is_none() {
            self.total += amount;
        }
    }
}

#[distributed_lock(key = "order:<order>", ttl = "1s", wait = "3s", backend = "redis")]
async fn pay(provider: &Remote<Provider>, order: usize) -> Result<(), Failed> {
    provider.call(format!("charge order {order}"), move |it| it.charge(order, 20)).await?;
    Ok(())
}

async fn checkout(provider: &Remote<Provider>) -> Result<(), Failed> {
    let order = sim::random(2);
    for _ in 0..3 {
        if pay(provider, order).await.is_ok() {
            break;
        }
    }
    Ok(())
}

pub async fn scenario() {
    let provider = Remote::new("payment provider", Provider::default());
    shop::on_servers(3, &provider, |provider, _| async move { checkout(&provider).await }).await;
    let total = provider.peek(|provider| provider.total);
    assert!(total <= 40, "two orders of 20 were charged {total}");
}
