//! What users' code does with tokio works in a simulated process: tasks, timers, and what the seed does not decide.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dlock_runtime::sim::{self, Explorer, Failure, FaultOptions, Process, Remote, Store};
use dlock_runtime::{LockError, Registry, distributed_lock};

const SECOND: Duration = Duration::from_secs(1);

/// How late a timer of tokio's may be, beyond the time of other events.
const LATE: Duration = Duration::from_millis(25);

fn calm() -> Explorer {
    Explorer::new(0..30).faults(FaultOptions::none())
}

/// A process whose task counts every ten milliseconds, for as long as it is alive.
fn counter() -> (Process<()>, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&count);
    let process = sim::process("counter", || async move {
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                counting.fetch_add(1, Ordering::Relaxed);
            }
        });
        task.await.ok();
    });
    (process, count)
}

#[test]
fn a_task_of_a_killed_process_never_runs_again() {
    calm().run(|| async {
        let (process, count) = counter();
        sim::sleep(SECOND).await;
        process.kill();
        assert!(process.await.is_err());
        let counted = count.load(Ordering::Relaxed);
        assert!(counted > 30, "it counts: {counted}");
        sim::sleep(SECOND).await;
        assert_eq!(count.load(Ordering::Relaxed), counted);
        // Nobody but the task had it.
        assert_eq!(Arc::strong_count(&count), 1);
    });
}

#[test]
fn a_task_of_a_paused_process_does_not_run_until_it_is_resumed() {
    calm().run(|| async {
        let (process, count) = counter();
        sim::sleep(SECOND).await;
        process.pause(SECOND);
        sim::sleep(SECOND / 100).await;
        let counted = count.load(Ordering::Relaxed);
        sim::sleep(SECOND * 9 / 10).await;
        assert_eq!(count.load(Ordering::Relaxed), counted);
        sim::sleep(SECOND).await;
        assert!(count.load(Ordering::Relaxed) > counted + 20);
    });
}

#[distributed_lock(key = "slow", ttl = "300ms", wait = "5s", backend = "redis")]
async fn slow() -> Result<Duration, LockError> {
    let began = sim::now();
    tokio::time::sleep(SECOND).await;
    Ok(since(began))
}

#[test]
fn a_sleep_of_tokio_in_a_body_takes_its_time() {
    calm().run(|| async {
        let began = sim::now();
        let (one, other) = (sim::process("one", slow), sim::process("other", slow));
        for process in [one, other] {
            let took = process.await.expect("not killed").expect("not busy");
            assert!((SECOND..SECOND + LATE).contains(&took), "took {took:?}");
        }
        let took = since(began);
        assert!(
            (SECOND * 2..SECOND * 2 + LATE * 2).contains(&took),
            "one after the other: {took:?}"
        );
    });
}

#[test]
fn a_timeout_of_tokio_ends_a_wait() {
    calm().run(|| async {
        let process = sim::process("impatient", || async {
            let began = sim::now();
            let never = std::future::pending::<()>();
            assert!(tokio::time::timeout(SECOND, never).await.is_err());
            assert!(tokio::time::timeout(SECOND, sim::sleep(SECOND / 2)).await.is_ok());
            since(began)
        });
        let took = process.await.expect("not killed");
        assert!((SECOND * 3 / 2..SECOND * 3 / 2 + LATE * 2).contains(&took), "took {took:?}");
    });
}

#[test]
fn a_process_that_resumes_sees_messages_before_its_timers() {
    let scenario = || async {
        let store = Store::leases();
        sim::backend("default", &store);
        store.pause(Duration::from_millis(5));
        let server = sim::process("server", || async {
            let locks = Registry::current().expect("each process has a registry");
            tokio::select! {
                biased;
                guard = locks.lock("key").acquire() => guard.is_ok(),
                () = sim::sleep(Duration::from_millis(2)) => false,
            }
        });
        sim::sleep(Duration::from_millis(1)).await;
        // First the timer is due, then the answer arrives.
        server.pause(SECOND);
        assert!(server.await.unwrap());
    };
    calm().without_tokio_timers().run(scenario);
}

#[test]
fn a_panic_on_a_host_is_a_violation() {
    let scenario = || async {
        let database = Remote::new("database", 1);
        let server = sim::process("server", move || async move {
            database.call("check the stock", |stock: &mut i32| assert_eq!(*stock, 2)).await.ok();
        });
        server.await.ok();
    };
    let failure = Explorer::new(0..10).try_run(scenario).expect_err("the assertion fails");
    assert!(failure.message.contains("left: 1"), "{failure}");
}

/// How much simulated time has passed.
fn since(began: Duration) -> Duration {
    sim::now().saturating_sub(began)
}

/// Explores a scenario in which a server does what only `choose` decides.
fn explore(choose: fn() -> Choice) -> Failure {
    let scenario = move || async move {
        let log = Remote::new("log", ());
        let server = sim::process("server", move || async move {
            let choice = choose().await;
            log.call(format!("chooses {choice}"), |()| ()).await.ok();
        });
        server.await.ok();
    };
    *Explorer::new(0..200).try_run(scenario).expect_err("not deterministic")
}

type Choice = std::pin::Pin<Box<dyn Future<Output = usize> + Send>>;

#[test]
fn a_scenario_that_depends_on_the_order_of_a_hash_set_is_reported() {
    let failure = explore(|| {
        let set: HashSet<usize> = (0..100).collect();
        let first = set.iter().next().copied();
        Box::pin(async move { first.unwrap_or_default() })
    });
    assert!(failure.diverged, "{failure}");
}

#[test]
fn a_scenario_that_depends_on_an_unbiased_select_is_reported() {
    let failure = explore(|| {
        Box::pin(async {
            let mut choice = 0;
            for bit in 0..20 {
                tokio::select! {
                    () = std::future::ready(()) => {}
                    () = std::future::ready(()) => choice |= 1 << bit,
                }
            }
            choice
        })
    });
    assert!(failure.diverged, "{failure}");
}
