//! Every argument and `self`, used in the body or not, is dropped before the lock is released.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dlock_runtime::{LockError, Registry, distributed_lock};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::registry;

/// Tries to acquire the lock when it is dropped. The attempt fails only while the lock is still
/// held.
struct Probe {
    registry: Registry,
    found_held: Arc<AtomicUsize>,
    found_free: Arc<AtomicUsize>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        let attempt = self.registry.lock("drops").wait(Duration::ZERO).acquire();
        // A single poll is enough: the memory backend answers at once.
        let busy = match attempt.now_or_never() {
            Some(taken) => taken.is_err(),
            None => true,
        };
        let counter = if busy { &self.found_held } else { &self.found_free };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Probes {
    registry: Registry,
    found_held: Arc<AtomicUsize>,
    found_free: Arc<AtomicUsize>,
}

impl Probes {
    fn new() -> Self {
        Self { registry: registry(), found_held: Arc::default(), found_free: Arc::default() }
    }

    fn probe(&self) -> Probe {
        let Self { registry, found_held, found_free } = self.clone();
        Probe { registry, found_held, found_free }
    }

    /// Runs a call that receives this many probes.
    async fn assert_dropped_under_the_lock(
        &self,
        probes: usize,
        call: impl Future<Output = Result<(), LockError>>,
    ) {
        self.registry.scope(call).await.expect("the lock is free");
        let held = self.found_held.swap(0, Ordering::SeqCst);
        let free = self.found_free.swap(0, Ordering::SeqCst);
        assert_eq!((held, free), (probes, 0), "(dropped under the lock, after the release)");
    }
}

#[tokio::test]
async fn without_the_attribute_the_probe_finds_the_lock_free() {
    let probes = Probes::new();
    drop(probes.probe());
    assert_eq!(probes.found_free.load(Ordering::SeqCst), 1);
}

#[distributed_lock(key = "drops")]
async fn used_and_unused(used: Probe, unused: Probe, _underscored: Probe) -> Result<(), LockError> {
    tokio::task::yield_now().await;
    drop(used);
    Ok(())
}

#[distributed_lock(key = "drops")]
async fn unnamed(_: Probe, _: (Probe, Probe)) -> Result<(), LockError> {
    tokio::task::yield_now().await;
    Ok(())
}

struct Pair {
    one: Probe,
    other: Probe,
}

#[distributed_lock(key = "drops")]
async fn destructured(
    Pair { one, other }: Pair,
    Pair { one: partly, .. }: Pair,
    (_, ref borrowed, [.., last]): (Probe, Probe, [Probe; 2]),
) -> Result<(), LockError> {
    tokio::task::yield_now().await;
    let _: (&Probe, &Probe, &Probe) = (&one, &partly, borrowed);
    let _: (&Probe, &Probe) = (&other, &last);
    Ok(())
}

#[distributed_lock(key = "drops")]
async fn fails(unused: Probe) -> Result<(), LockError> {
    Err(LockError::NotInstalled)?;
    Ok(())
}

#[distributed_lock(key = "drops")]
fn opaque(unused: Probe, used: Probe) -> impl Future<Output = Result<(), LockError>> {
    async move {
        tokio::task::yield_now().await;
        let _: &Probe = &used;
        Ok(())
    }
}

#[distributed_lock(key = "drops")]
fn boxed(unused: Probe, used: Probe) -> BoxFuture<'static, Result<(), LockError>> {
    Box::pin(async move {
        tokio::task::yield_now().await;
        drop(used);
        Ok(())
    })
}

struct Owner(Probe);

impl Owner {
    #[distributed_lock(key = "drops")]
    async fn by_value(self, unused: Probe) -> Result<(), LockError> {
        tokio::task::yield_now().await;
        Ok(())
    }

    #[distributed_lock(key = "drops")]
    async fn by_value_used(self) -> Result<(), LockError> {
        tokio::task::yield_now().await;
        let _: &Probe = &self.0;
        Ok(())
    }
}

#[async_trait]
trait Service: Sized {
    async fn consume(self, unused: Probe, _: Probe) -> Result<(), LockError>;
}

#[async_trait]
impl Service for Owner {
    #[distributed_lock(key = "drops")]
    async fn consume(self, _unused: Probe, _: Probe) -> Result<(), LockError> {
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[tokio::test]
async fn every_argument_is_dropped_before_the_release() {
    let probes = Probes::new();
    let probe = || probes.probe();
    let pair = || Pair { one: probe(), other: probe() };
    let check = |count, call| probes.assert_dropped_under_the_lock(count, call);
    check(3, used_and_unused(probe(), probe(), probe()).boxed()).await;
    check(3, unnamed(probe(), (probe(), probe())).boxed()).await;
    let array = [probe(), probe()];
    check(8, destructured(pair(), pair(), (probe(), probe(), array)).boxed()).await;
    check(2, opaque(probe(), probe()).boxed()).await;
    check(2, boxed(probe(), probe())).await;
    check(2, Owner(probe()).by_value(probe()).boxed()).await;
    check(1, Owner(probe()).by_value_used().boxed()).await;
    check(3, Owner(probe()).consume(probe(), probe())).await;
}

#[tokio::test]
async fn arguments_of_a_body_that_fails_are_dropped_before_the_release() {
    let probes = Probes::new();
    let failed = probes.registry.scope(fails(probes.probe())).await;
    assert!(failed.is_err());
    assert_eq!(probes.found_held.load(Ordering::SeqCst), 1);
    assert_eq!(probes.found_free.load(Ordering::SeqCst), 0);
}
