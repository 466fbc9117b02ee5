//! Metrics: every one that is documented is recorded, labelled by key template and never by key.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::Duration;

use dlock_runtime::backend::Memory;
use dlock_runtime::testing::{Call, Intercepted};
use dlock_runtime::{LockError, Registry, distributed_lock, metrics as documented};
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

#[distributed_lock(key = "product:<id>", wait = "0s")]
async fn purchase(id: u64) -> Result<u64, LockError> {
    tokio::task::yield_now().await;
    Ok(id)
}

#[distributed_lock(key = "report", on_busy = "skip")]
async fn report() -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(keys = ["account:<from>", "vault:<to>"])]
async fn transfer(from: u64, to: u64) -> Result<(), LockError> {
    tokio::task::yield_now().await;
    let _ = (from, to);
    Ok(())
}

fn registry() -> Registry {
    Registry::builder().backend("shop", Memory::new()).build().expect("a registry")
}

type Labels = BTreeMap<String, String>;

/// What was recorded, by name and labels.
#[derive(Debug, Default)]
struct Recorded(Vec<(MetricKind, String, Labels, DebugValue)>);

impl Recorded {
    fn of(snapshotter: &Snapshotter) -> Self {
        let all = snapshotter.snapshot().into_vec().into_iter();
        let all = all.map(|(key, _, _, value)| {
            let (kind, key) = key.into_parts();
            let labels = key.labels().map(|label| (label.key().into(), label.value().into()));
            (kind, key.name().to_owned(), labels.collect(), value)
        });
        Self(all.collect())
    }

    fn values(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &DebugValue> {
        let fits = move |found: &Labels| {
            labels.iter().all(|(key, value)| found.get(*key).is_some_and(|found| found == value))
        };
        let found = self.0.iter().filter(move |(_, of, found, _)| of == name && fits(found));
        found.map(|(_, _, _, value)| value)
    }

    fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let count = |value: &DebugValue| match value {
            DebugValue::Counter(count) => *count,
            other => panic!("{name} is {other:?}"),
        };
        self.values(name, labels).map(count).sum()
    }

    fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let value = |value: &DebugValue| match value {
            DebugValue::Gauge(value) => value.into_inner(),
            other => panic!("{name} is {other:?}"),
        };
        self.values(name, labels).map(value).sum()
    }

    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let sum = |value: &DebugValue| match value {
            DebugValue::Histogram(values) => {
                values.iter().map(|value| value.into_inner()).sum::<f64>()
            }
            other => panic!("{name} is {other:?}"),
        };
        self.values(name, labels).map(sum).sum::<f64>()
    }
}

/// Runs a future with a recorder of its own and with tokio's clock paused.
fn recorded<F: Future>(run: impl FnOnce(Snapshotter) -> F) -> Recorded {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(run(snapshotter.clone()));
    });
    Recorded::of(&snapshotter)
}

#[test]
fn calls_are_counted_by_template_and_outcome() {
    let recorded = recorded(|_| async {
        let registry = registry();
        for id in 0..5 {
            registry.scope(purchase(id)).await.expect("free");
        }
        let held = registry.lock("product:9").acquire().await.expect("free");
        registry.scope(purchase(9)).await.expect_err("busy");
        held.release().await.expect("held");
        let held = registry.lock("report").acquire().await.expect("free");
        registry.scope(report()).await.expect("skipped");
        held.release().await.expect("held");
        registry.shutdown(SECOND).await.expect("nothing is held");
        registry.scope(purchase(1)).await.expect_err("shut down");
    });
    let count = |template, outcome| {
        recorded.count("dlock_acquires_total", &[("template", template), ("outcome", outcome)])
    };
    assert_eq!(count("product:<id>", "acquired"), 5);
    assert_eq!(count("product:<id>", "busy"), 1);
    assert_eq!(count("product:<id>", "failed"), 1);
    assert_eq!((count("report", "skipped"), count("report", "busy")), (1, 0));
    assert_eq!(count("(manual)", "acquired"), 2);
    for (_, name, labels, _) in &recorded.0 {
        assert!(!labels.values().any(|value| value.starts_with("product:9")), "{name} {labels:?}");
    }
}

#[test]
fn each_lock_of_a_set_is_counted_under_its_own_template() {
    let recorded = recorded(|_| async {
        registry().scope(transfer(1, 2)).await.expect("free");
    });
    for template in ["account:<from>", "vault:<to>"] {
        let labels = [("template", template), ("backend", "shop")];
        assert_eq!(recorded.count("dlock_acquires_total", &labels), 1, "{template}");
        let holds = recorded.values("dlock_hold_seconds", &labels).map(|value| match value {
            DebugValue::Histogram(values) => values.len(),
            _ => 0,
        });
        assert_eq!(holds.sum::<usize>(), 1, "{template}");
    }
}

#[test]
fn holds_and_waits_are_gauges_while_they_last() {
    let (mut during, mut long, mut after) = Default::default();
    recorded(|snapshotter| {
        let (during, long, after) = (&mut during, &mut long, &mut after);
        async move {
            let registry = registry();
            let held = registry.lock("k").template("k").acquire().await.expect("free");
            let waiter = registry.lock("k").template("k").run(async {});
            let waiter = tokio::spawn(waiter);
            sleep(SECOND / 100).await;
            *during = Recorded::of(&snapshotter);
            sleep(SECOND * 7).await;
            *long = Recorded::of(&snapshotter);
            held.release().await.expect("held");
            waiter.await.expect("it ends").expect("free");
            sleep(SECOND).await;
            *after = Recorded::of(&snapshotter);
        }
    });
    let labels = [("template", "k"), ("backend", "shop")];
    let of = |recorded: &Recorded| {
        (recorded.gauge("dlock_held", &labels), recorded.gauge("dlock_waiting", &labels))
    };
    assert_eq!(of(&during), (1.0, 1.0));
    let oldest = long.gauge("dlock_oldest_wait_seconds", &labels);
    assert!((5.9..7.1).contains(&oldest), "{oldest}");
    // A debugging recorder begins anew at each snapshot.
    assert_eq!(of(&after), (-1.0, -1.0));
    assert!(after.gauge("dlock_oldest_wait_seconds", &labels).abs() < f64::EPSILON);
    assert_eq!(after.count("dlock_passes_total", &labels), 0, "seven seconds are too long");
    let blame = [("template", "k"), ("holder", "k")];
    let charged = [&during, &long, &after].map(|one| one.sum("dlock_blame_seconds", &blame));
    assert!((6.9..7.2).contains(&charged.iter().sum::<f64>()), "{charged:?}");
}

#[test]
fn losses_and_failures_are_counted() {
    let recorded = recorded(|_| async {
        let store = Intercepted::new(Memory::new());
        let registry = Registry::builder().backend("shop", store.clone()).build();
        let registry = registry.expect("a registry");
        let lock = || registry.lock("k").template("k").ttl(SECOND);
        lock().run(sleep(SECOND * 3)).await.expect("renewed");
        lock().max_hold(SECOND).run(pending::<()>()).await.expect_err("held too long");
        store.fail(Call::Renew);
        lock().run(pending::<()>()).await.expect_err("expired");
        store.heal();
        let revoke = async {
            sleep(SECOND / 10).await;
            registry.lock("k").force_release().await.expect("it is held");
        };
        let run = lock().run(pending::<()>());
        let (lost, ()) = tokio::join!(run, revoke);
        lost.expect_err("force-released");
        store.fail(Call::Acquire);
        lock().wait(SECOND).acquire().await.expect_err("failed");
    });
    let of = |reason| recorded.count("dlock_lost_total", &[("template", "k"), ("reason", reason)]);
    assert_eq!((of("expired"), of("not_held")), (1, 1));
    assert_eq!(recorded.count("dlock_held_too_long_total", &[("template", "k")]), 1);
    assert!(recorded.count("dlock_renewals_total", &[("template", "k")]) >= 4);
    let failed =
        |operation| recorded.count("dlock_store_failures_total", &[("operation", operation)]);
    let renewals = recorded.count("dlock_renewal_failures_total", &[("template", "k")]);
    assert!(renewals > 0 && failed("renew") == renewals, "{renewals}");
    assert!(failed("acquire") > 1);
}

/// The disagreement is counted once, however often it occurs.
#[test]
fn differing_numbers_of_permits_are_reported_once() {
    let recorded = recorded(|_| async {
        let registry = registry();
        let of = |number: u32| registry.lock("printer").permits(number.try_into().expect("some"));
        let held = of(2).acquire().await.expect("free");
        for _ in 0..3 {
            of(3).acquire().await.expect("free").release().await.expect("held");
            of(2).acquire().await.expect("free").release().await.expect("held");
        }
        held.release().await.expect("held");
    });
    assert_eq!(recorded.count("dlock_permits_disagreements_total", &[]), 1);
}

/// Everything that can happen, so that every metric is recorded.
async fn everything() {
    let store = Intercepted::new(Memory::new());
    let registry = Registry::builder().backend("shop", store.clone()).build();
    let registry = registry.expect("a registry");
    let lock = || registry.lock("k").template("k").ttl(SECOND).wait(SECOND * 20);
    let first = lock().acquire().await.expect("free");
    let waiters = [(); 2].map(|()| tokio::spawn(lock().run(async {})));
    sleep(SECOND * 2).await;
    first.release().await.expect("held");
    for waiter in waiters {
        waiter.await.expect("it ends").expect("free");
    }
    lock().max_hold(SECOND).run(pending::<()>()).await.expect_err("held too long");
    store.fail(Call::Renew);
    lock().run(pending::<()>()).await.expect_err("expired");
    let two = registry.lock("p").permits(2.try_into().expect("some"));
    let three = registry.lock("p").permits(3.try_into().expect("some"));
    let held = two.acquire().await.expect("free");
    three.acquire().await.expect("free").release().await.expect("held");
    held.release().await.expect("held");
}

#[test]
fn every_documented_metric_is_recorded_as_documented_and_no_other() {
    let recorded = recorded(|_| everything());
    let of = |kind: MetricKind, name: &str, labels: &Labels| {
        let labels: BTreeSet<_> = labels.keys().cloned().collect();
        format!("{kind:?} {name} {labels:?}")
    };
    let found: BTreeSet<_> =
        recorded.0.iter().map(|(kind, name, labels, _)| of(*kind, name, labels)).collect();
    let described: BTreeSet<_> = documented::ALL
        .iter()
        .map(|metric| {
            let labels = metric.labels.iter().map(|label| ((*label).to_owned(), String::new()));
            of(metric_kind(metric.kind), metric.name, &labels.collect())
        })
        .collect();
    assert_eq!(found, described);
}

fn metric_kind(kind: documented::Kind) -> MetricKind {
    match kind {
        documented::Kind::Counter => MetricKind::Counter,
        documented::Kind::Gauge => MetricKind::Gauge,
        documented::Kind::Histogram => MetricKind::Histogram,
        other => panic!("{other:?} is new"),
    }
}
