//! What operators see: spans with the template as a field, metrics with the template as a label.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, Registry, distributed_lock};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

#[distributed_lock(key = "product:<id>", wait = "0s")]
async fn purchase(id: u64) -> Result<u64, LockError> {
    tokio::task::yield_now().await;
    Ok(id)
}

fn registry() -> Registry {
    Registry::builder().backend("shop", Memory::new()).build().expect("a registry")
}

type Fields = HashMap<String, String>;

/// Keeps every span's name and fields.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<HashMap<u64, (String, Fields)>>>);

struct Keep<'a>(&'a mut Fields);

impl Visit for Keep<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: tracing::Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Keep(&mut fields));
        let name = attributes.metadata().name().to_owned();
        self.0.lock().expect("not poisoned").insert(id.into_u64(), (name, fields));
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, _: Context<'_, S>) {
        if let Some((_, fields)) = self.0.lock().expect("not poisoned").get_mut(&id.into_u64()) {
            record.record(&mut Keep(fields));
        }
    }
}

#[tokio::test]
async fn acquire_and_hold_are_spans() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    registry().scope(purchase(7)).await.expect("free");
    let spans = spans.0.lock().expect("not poisoned");
    let named = |name: &str| {
        let found = spans.values().find(|(of, _)| of == name);
        &found.unwrap_or_else(|| panic!("no span {name}: {spans:?}")).1
    };
    let acquire = named("lock.acquire");
    assert_eq!(acquire["template"], "product:<id>");
    assert_eq!(acquire["key"], "product:7");
    assert_eq!(acquire["backend"], "shop");
    assert_eq!(acquire["outcome"], "acquired");
    assert!(acquire.contains_key("waited"), "{acquire:?}");
    let hold = named("lock.hold");
    assert_eq!(hold["template"], "product:<id>");
    assert_eq!(hold["outcome"], "completed");
    assert_eq!(hold["token"], acquire["token"]);
    assert!(hold.contains_key("held"), "{hold:?}");
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

/// Logged and counted once, however often it is met.
#[test]
fn two_numbers_of_permits_are_told_once() {
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
    let told =
        snapshotter.snapshot().into_vec().into_iter().filter_map(|(key, _, _, value)| {
            match (key.key().name(), value) {
                ("dlock_permits_disagreements_total", DebugValue::Counter(count)) => Some(count),
                _ => None,
            }
        });
    assert_eq!(told.sum::<u64>(), 1);
}
