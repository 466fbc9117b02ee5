//! Leases that pass from task to task: processes with several tasks that all want one key, give up when it is their turn,
//! and are paused between the end of one hold and the beginning of the next.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use dlock_runtime::Registry;
use dlock_runtime::sim::{self, Process, Store};

use crate::functions::{self, Work};
use crate::ledger::Ledger;
use crate::programs::check_result;

/// A schedule goes on until it has had so many steps.
const STEPS: u64 = 300;

/// Longer than any ttl here, and than all that the clock of the store may be set back.
const AFTERMATH: Duration = Duration::from_secs(15);

/// The whole scenario.
///
/// # Panics
/// If a promise is broken.
pub async fn passing() {
    let store = Store::leases();
    sim::backend("default", &store);
    let ledger = Ledger::default();
    while sim::steps() < STEPS {
        let processes: Vec<_> = (0..5).map(|number| start(number, &ledger, &store)).collect();
        for _ in 0..20 {
            sim::sleep(up_to(200)).await;
            processes[sim::random(processes.len())].pause(up_to(350));
        }
        for process in processes {
            if let Ok(Err(problem)) = process.await {
                panic!("{problem}");
            }
        }
    }
    sim::calm();
    sim::sleep(AFTERMATH).await;
    ledger.check();
    let left = store.occupied();
    assert!(left.is_empty(), "left behind in the store: {left:?}");
}

fn up_to(milliseconds: usize) -> Duration {
    Duration::from_millis(sim::random(milliseconds) as u64)
}

/// A process of four tasks.
fn start(number: usize, ledger: &Ledger, store: &Store) -> Process<Result<(), String>> {
    let (ledger, store) = (ledger.clone(), store.clone());
    sim::process(format!("p{number}"), move || async move {
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let who = format!("p{number}.{task}");
                tokio::spawn(calls(who, ledger.clone(), store.clone()))
            })
            .collect();
        for task in tasks {
            task.await.map_err(|error| error.to_string())??;
        }
        let registry = Registry::current().expect("each process has a registry");
        let ended = registry.shutdown(Duration::from_secs(100)).await;
        ended.map_err(|error| format!("p{number}: {error}"))
    })
}

async fn calls(who: String, ledger: Ledger, store: Store) -> Result<(), String> {
    let mut rounds = 0;
    while sim::steps() < STEPS || rounds == 0 {
        rounds += 1;
        let work = Work {
            who: who.clone(),
            ledger: ledger.clone(),
            steps: sim::random(3),
            pause: Duration::from_millis([0, 0, 5, 60][sim::random(4)]),
        };
        let began = sim::now();
        let called = functions::passed_on(0, &work);
        if sim::random(4) == 0 {
            let mut called = pin!(called);
            // Polled once, and then not for a while: the lease may be passed to it meanwhile.
            let polled = poll_fn(|cx| Poll::Ready(called.as_mut().poll(cx))).await;
            if polled.is_pending() {
                sim::sleep(up_to(250)).await;
                if sim::random(2) == 0 {
                    sim::note("gives up");
                    continue;
                }
                check_result(&who, called.await, began, &store)?;
            }
            continue;
        }
        check_result(&who, called.await, began, &store)?;
    }
    Ok(())
}
