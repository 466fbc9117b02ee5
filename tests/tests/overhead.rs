//! What an annotated call costs in allocations. A count is deterministic, so it is a test; the time
//! is a benchmark.

use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, Registry, distributed_lock};

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64) -> Result<u64, LockError> {
    Ok(id)
}

#[test]
fn an_uncontended_call_on_memory_allocates_at_most_ten_times() {
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
    assert!(each <= 10, "{each} allocations per call");
}
