//! What an annotated call costs in allocations. A count is deterministic, so it is a test; the time
//! is a benchmark.

use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, Registry, distributed_lock};

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64) -> Result<u64, LockError> {
    Ok(id)
}

/// The key, the future, the hold, and the body's place in the chain of bodies.
const ALLOCATIONS: u64 = 4;

/// The labels of five metrics, because this package turns on the feature `metrics`.
const FOR_METRICS: u64 = 5;

#[test]
fn an_uncontended_call_on_memory_allocates_four_times() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let registry = Registry::builder().backend("memory", Memory::new()).build();
    let registry = registry.expect("a registry");
    // The first call starts the watchdog and grows the maps.
    runtime.block_on(registry.scope(purchase(1))).expect("free");
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            runtime.block_on(registry.scope(purchase(1))).expect("free");
        }
    });
    let each = counted.count_total.div_ceil(100);
    println!("{each} allocations per call, {} bytes", counted.bytes_total / 100);
    assert!(each <= ALLOCATIONS + FOR_METRICS, "{each} allocations per call");
}

/// What a lease costs while it is held: the hold, its places in the local queue and in the watchdog's schedule, and the
/// record of the memory store.
#[test]
fn a_held_lease_takes_at_most_a_kibibyte() {
    const LEASES: usize = 10_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let registry = Registry::builder().backend("memory", Memory::new()).build();
    let registry = registry.expect("a registry");
    let mut guards = Vec::with_capacity(LEASES);
    let counted = allocation_counter::measure(|| {
        runtime.block_on(async {
            for number in 0..LEASES {
                let lock = registry.lock(format!("product:{number}"));
                guards.push(lock.acquire().await.expect("free"));
            }
        });
    });
    let each = counted.bytes_current / 10_000;
    println!("{each} bytes per lease");
    assert!(each <= 1_024, "{each} bytes per lease");
}
