//! The shop, with the annotated function.

use std::time::Duration;

use dlock_runtime::{Backend, FencingToken, LockError, distributed_lock};

use crate::event::{Event, Outcome, Teller};
use crate::store::{Refused, Store};

/// The lease of a purchase: how soon the other servers continue after this one has died. Two
/// seconds, if the backend supports that.
pub fn ttl(backend: &dyn Backend) -> Duration {
    Duration::from_secs(2).max(backend.capabilities().min_ttl)
}

/// The time between reading the stock and selling: a payment, a second check, a slow disk.
const THINKING: Duration = Duration::from_millis(3);

/// One server's view of the shop.
pub struct Shop {
    pub server: usize,
    pub item: String,
    pub store: Store,
    pub teller: Teller,
}

/// Why a purchase failed.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    /// The lock was busy or lost, or the backend failed.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store has seen a later holder's token.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store cannot be read or written.
    #[error("the store failed: {0}")]
    Store(#[from] std::io::Error),
}

/// Sells one item, no matter which server is asked or how many are asked at once.
///
/// A holder that was paused beyond its lease may continue writing when it resumes. `on_lost =
/// "finish"` allows that, and the store rejects the write by its token. The ttl is the registry's
/// default.
#[distributed_lock(
    key = "item:<shop.item>",
    wait = "1m",
    backend = "shop",
    on_lost = "finish",
    guard = lock
)]
pub async fn purchase(shop: &Shop, customer: u32) -> Result<bool, ShopError> {
    shop.sell(customer, Some(lock.fencing_token())).await
}

/// The same without the lock, to show how several servers oversell.
pub async fn purchase_unlocked(shop: &Shop, customer: u32) -> Result<bool, ShopError> {
    shop.sell(customer, None).await
}

impl Shop {
    /// Reads, waits, and sells: a read and a write with time in between. Returns true if an item
    /// was left.
    async fn sell(&self, customer: u32, token: Option<FencingToken>) -> Result<bool, ShopError> {
        let began = self.teller.tell(Event::Began { customer });
        let sold = self.look_and_sell(customer, token).await;
        let outcome = match &sold {
            Ok(true) => Outcome::Sold,
            Ok(false) => Outcome::SoldOut,
            Err(_) => Outcome::Refused,
        };
        self.teller.tell(Event::Ended { customer, began, outcome });
        sold
    }

    async fn look_and_sell(
        &self,
        customer: u32,
        token: Option<FencingToken>,
    ) -> Result<bool, ShopError> {
        if self.store.left(token)? == 0 {
            return Ok(false);
        }
        tokio::time::sleep(THINKING).await;
        self.teller.linger_if_told(customer).await;
        self.store.sell(self.server, customer, token)?;
        Ok(true)
    }
}
