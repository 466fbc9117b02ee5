//! Metrics, labelled by key template.

use std::collections::HashMap;

use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, Registry, distributed_lock};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[distributed_lock(key = "product:<id>", wait = "0s")]
async fn purchase(id: u64) -> Result<u64, LockError> {
    tokio::task::yield_now().await;
    Ok(id)
}

fn registry() -> Registry {
    Registry::builder().backend("shop", Memory::new()).build().expect("a registry")
}

#[test]
fn metrics_are_labelled_by_template_never_by_key() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let registry = registry();
            for id in 0..5 {
                registry.scope(purchase(id)).await.expect("free");
            }
            let held = registry.lock("product:9").acquire().await.expect("free");
            registry.scope(purchase(9)).await.expect_err("busy");
            held.release().await.expect("held");
        });
    });
    let mut acquires = HashMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: HashMap<_, _> =
            key.key().labels().map(|label| (label.key(), label.value())).collect();
        assert!(!labels.values().any(|value| value.starts_with("product:9")), "{labels:?}");
        if let ("dlock_acquires_total", DebugValue::Counter(count)) = (key.key().name(), value) {
            acquires.insert((labels["template"].to_owned(), labels["outcome"].to_owned()), count);
        }
    }
    let count = |template: &str, outcome: &str| {
        acquires.get(&(template.to_owned(), outcome.to_owned())).copied()
    };
    assert_eq!(count("product:<id>", "acquired"), Some(5));
    assert_eq!(count("product:<id>", "busy"), Some(1));
    assert_eq!(count("(manual)", "acquired"), Some(1));
}

/// The disagreement is logged and counted once, however often it occurs.
#[test]
fn differing_numbers_of_permits_are_reported_once() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let registry = registry();
            let of =
                |number: u32| registry.lock("printer").permits(number.try_into().expect("some"));
            let held = of(2).acquire().await.expect("free");
            for _ in 0..3 {
                of(3).acquire().await.expect("free").release().await.expect("held");
                of(2).acquire().await.expect("free").release().await.expect("held");
            }
            held.release().await.expect("held");
        });
    });
    let reported =
        snapshotter.snapshot().into_vec().into_iter().filter_map(|(key, _, _, value)| {
            match (key.key().name(), value) {
                ("dlock_permits_disagreements_total", DebugValue::Counter(count)) => Some(count),
                _ => None,
            }
        });
    assert_eq!(reported.sum::<u64>(), 1);
}
