//! Tasks that only acquire and release locks yield to other tasks of their runtime, although the
//! memory backend always answers at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, Registry, distributed_lock};

const WORKERS: usize = 2;
const TASKS: u64 = 64;
const TICKS: usize = 5;

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64) -> Result<u64, LockError> {
    Ok(id)
}

#[distributed_lock(key = "product:<id>")]
async fn purchase_twice(id: u64) -> Result<u64, LockError> {
    purchase(id).await?;
    purchase(id).await
}

async fn buys_on(registry: Registry, id: u64, enough: Arc<AtomicBool>) -> Result<(), LockError> {
    let buys = async {
        while !enough.load(Ordering::Relaxed) {
            purchase(id).await?;
            purchase_twice(id).await?;
        }
        Ok(())
    };
    registry.scope(buys).await
}

#[test]
fn loops_of_annotated_calls_do_not_starve_a_timer() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(WORKERS).enable_all().build().expect("a runtime");
    let registry = Registry::builder().backend("memory", Memory::new()).build();
    let registry = registry.expect("a registry");
    let enough = Arc::new(AtomicBool::new(false));
    let buyers: Vec<_> = (0..TASKS)
        .map(|id| runtime.spawn(buys_on(registry.clone(), id, Arc::clone(&enough))))
        .collect();
    let (notify, ticked) = mpsc::channel();
    runtime.spawn(async move {
        for _ in 0..TICKS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = notify.send(());
    });
    let ticked = ticked.recv_timeout(Duration::from_mins(1));
    enough.store(true, Ordering::Relaxed);
    assert!(ticked.is_ok(), "{TASKS} tasks on {WORKERS} workers starved a timer");
    for buyer in buyers {
        runtime.block_on(buyer).expect("no panic").expect("free");
    }
}
