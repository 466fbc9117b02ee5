//! Spans, with the key template as a field.
//!
//! A single test in its own process: while only one thread has a subscriber, `tracing` may cache as
//! disabled any callsite that another thread reaches first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, Registry, distributed_lock};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

#[distributed_lock(key = "product:<id>", wait = "0s")]
async fn purchase(id: u64) -> Result<u64, LockError> {
    tokio::task::yield_now().await;
    Ok(id)
}

type Fields = HashMap<String, String>;

/// Collects the name and fields of every span.
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
    let registry = Registry::builder().backend("shop", Memory::new()).build();
    let registry = registry.expect("a registry");
    registry.scope(purchase(7)).await.expect("free");
    let spans = spans.0.lock().expect("not poisoned");
    let named = |name: &str| {
        let found = spans.values().find(|(of, _)| of == name);
        &found.unwrap_or_else(|| panic!("no span {name}: {spans:?}")).1
    };
    let acquire = named("lock.acquire");
    assert_eq!(acquire["dlock.template"], "product:<id>");
    assert_eq!(acquire["dlock.key"], "product:7");
    assert_eq!(acquire["dlock.backend"], "shop");
    assert_eq!(acquire["dlock.outcome"], "acquired");
    assert!(acquire.contains_key("dlock.wait"), "{acquire:?}");
    let hold = named("lock.hold");
    assert_eq!(hold["dlock.template"], "product:<id>");
    assert_eq!(hold["dlock.outcome"], "completed");
    assert_eq!(hold["dlock.token"], acquire["dlock.token"]);
    assert!(hold.contains_key("dlock.held"), "{hold:?}");
}
