//! The attribute on the memory backend beside a bare `tokio::sync::Mutex`.

use criterion::{Criterion, criterion_group, criterion_main};
use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, Registry, distributed_lock};
use tokio::sync::Mutex;

#[distributed_lock(key = "product:<id>")]
async fn annotated(id: u64) -> Result<u64, LockError> {
    Ok(id)
}

async fn under_a_mutex(mutex: &Mutex<()>, id: u64) -> u64 {
    let _guard = mutex.lock().await;
    id
}

fn compare(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut group = criterion.benchmark_group("uncontended call");
    let mutex = Mutex::new(());
    group.bench_function("tokio::sync::Mutex", |bench| {
        bench.to_async(&runtime).iter(|| under_a_mutex(&mutex, 7));
    });
    Registry::builder().backend("memory", Memory::new()).install().expect("a registry");
    group.bench_function("attribute on memory", |bench| {
        bench.to_async(&runtime).iter(|| annotated(7));
    });
    group.finish();
}

criterion_group!(benches, compare);
criterion_main!(benches);
