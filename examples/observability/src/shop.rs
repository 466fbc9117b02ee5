//! The shop: two functions that need the same locks, one for a moment and one for long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dlock_runtime::{LockError, distributed_lock};
use metrics::{Unit, describe_histogram, histogram};
use tokio::time::sleep;

/// How many products there are.
pub(crate) const PRODUCTS: u32 = 3;

/// The service's own measurement of what dlock measures too.
const WAIT: &str = "shop_lock_wait_seconds";

pub(crate) struct Shop {
    is_open: AtomicBool,
    /// How long all calls have waited for their locks, in microseconds.
    waited: AtomicU64,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let description = "how long a call waited for its lock, by the service's own clock";
        describe_histogram!(WAIT, Unit::Seconds, description);
        Self { is_open: AtomicBool::new(true), waited: AtomicU64::new(0) }
    }

    /// Sells one item of a product. `called`: when the caller asked for it.
    #[distributed_lock(key = "product:<id>", ttl = "10s", wait = "5s")]
    pub(crate) async fn purchase(&self, id: u32, called: Instant) -> Result<(), LockError> {
        self.note_wait("purchase", called);
        sleep(Duration::from_millis(5)).await;
        Ok(())
    }

    /// Counts the items of a product. It asks the warehouse while it holds the lock, which makes it slow.
    #[distributed_lock(key = "product:<id>", ttl = "3s", wait = "30s")]
    pub(crate) async fn nightly_inventory(
        &self,
        id: u32,
        called: Instant,
    ) -> Result<(), LockError> {
        self.note_wait("nightly_inventory", called);
        sleep(Duration::from_millis(1_500)).await;
        Ok(())
    }

    /// Notes how long a call has waited that has its lock now, or does not get it.
    pub(crate) fn note_wait(&self, function: &'static str, called: Instant) {
        let waited = called.elapsed();
        histogram!(WAIT, "function" => function).record(waited);
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.waited.fetch_add(micros, Ordering::Relaxed);
    }

    /// How long all calls have waited until now.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_micros(self.waited.load(Ordering::Relaxed))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::Relaxed);
    }
}
