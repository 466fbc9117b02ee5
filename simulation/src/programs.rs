//! Random programs: several processes that call annotated functions, wait, give up, and are hit by faults.

use std::time::Duration;

use dlock_runtime::sim::{self, Process, Store};
use dlock_runtime::{LockError, Registry};

use crate::functions::{self, Work};
use crate::ledger::Ledger;

/// A schedule goes on until it has had so many steps.
const STEPS: u64 = 220;

/// How long after the last fault everything must be free again: longer than any ttl, and than any wait in a queue.
const AFTERMATH: Duration = Duration::from_secs(15);

/// The whole scenario, on a store of leases.
pub async fn on_leases() {
    on_store(Store::leases()).await;
}

async fn on_store(store: Store) {
    sim::backend("default", &store);
    let ledger = Ledger::default();
    let processes: Vec<_> =
        (0..5 + sim::random(3)).map(|number| start(number, &ledger, &store)).collect();
    for process in processes {
        // A killed process has no result.
        if let Ok(failed) = process.await {
            assert!(failed.is_none(), "{}", failed.unwrap_or_default());
        }
    }
    sim::calm();
    sim::sleep(AFTERMATH).await;
    ledger.check();
    let left = store.occupied();
    assert!(left.is_empty(), "left behind in the store: {left:?}");
}

fn start(number: usize, ledger: &Ledger, store: &Store) -> Process<Option<String>> {
    let (ledger, store) = (ledger.clone(), store.clone());
    sim::process(format!("p{number}"), move || run(number, ledger, store))
}

/// One process: a few tasks that call functions, then an orderly shutdown.
async fn run(number: usize, ledger: Ledger, store: Store) -> Option<String> {
    let tasks: Vec<_> = (0..=sim::random(2))
        .map(|task| {
            let (who, ledger, store) = (format!("p{number}.{task}"), ledger.clone(), store.clone());
            tokio::spawn(async move { calls(who, ledger, &store).await })
        })
        .collect();
    for task in tasks {
        if let Ok(Err(problem)) = task.await {
            return Some(problem);
        }
    }
    let registry = Registry::current().expect("each process has a registry");
    // A shutdown within a minute fails only if something is stuck: no fault lasts that long.
    registry
        .shutdown(Duration::from_secs(100))
        .await
        .err()
        .map(|error| format!("p{number}: {error}"))
}

async fn calls(who: String, ledger: Ledger, store: &Store) -> Result<(), String> {
    let mut rounds = 0;
    while sim::steps() < STEPS || rounds == 0 {
        rounds += 1;
        let work = Work {
            who: who.clone(),
            ledger: ledger.clone(),
            steps: sim::random(4),
            pause: Duration::from_millis([0, 0, 20, 350][sim::random(4)]),
        };
        let called = call(sim::random(14), &work);
        // Some callers give up.
        if sim::random(6) == 0 {
            let patience = Duration::from_millis([1, 30, 400][sim::random(3)]);
            let called = std::pin::pin!(called);
            give_up_after(patience, called).await;
            continue;
        }
        let began = sim::now();
        check_result(&who, called.await, began, store)?;
        if sim::random(3) == 0 {
            sim::sleep(Duration::from_millis(sim::random(200) as u64)).await;
        }
    }
    Ok(())
}

async fn give_up_after(patience: Duration, called: impl Future + Unpin) {
    tokio::select! {
        biased;
        _ = called => {}
        () = sim::sleep(patience) => sim::note("gives up"),
    }
}

async fn call(choice: usize, work: &Work) -> Result<(), LockError> {
    let item = sim::random(2);
    match choice {
        0 => functions::without_renewal(item, work).await,
        1 => functions::skipping(item, work).await,
        2 => functions::fair(item, work).await,
        3 | 4 => functions::shared(item, work).await,
        5 => functions::permits(item, work).await,
        6 | 7 => functions::set(0, 1, work).await,
        8 => functions::at_most(item, work).await,
        9 => functions::at_least(item, work).await,
        10 => functions::finishing(item, work).await,
        11 => functions::nested(item, work).await,
        _ => functions::exclusive(item, work).await,
    }
}

fn check_result(
    who: &str,
    result: Result<(), LockError>,
    began: Duration,
    store: &Store,
) -> Result<(), String> {
    match result {
        Err(LockError::Busy { key, .. }) if !store.was_occupied(key.clone(), began) => {
            Err(format!("{who}: {key} is said to be busy, but nobody had it since {began:?}"))
        }
        Ok(())
        | Err(
            LockError::Busy { .. }
            | LockError::Lost { .. }
            | LockError::HeldTooLong { .. }
            | LockError::Backend { .. },
        ) => Ok(()),
        Err(other) => Err(format!("{who}: {other}")),
    }
}
