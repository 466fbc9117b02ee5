//! Random programs: several processes that call annotated functions, wait, give up, and are hit by faults.

use std::time::Duration;

use dlock_runtime::sim::{self, Process, Store};
use dlock_runtime::{HeldBy, LockError, Registry};

use crate::functions::{self, Work};
use crate::ledger::Ledger;

/// A schedule goes on until it has had so many steps.
const STEPS: u64 = 220;

/// How long after the last fault everything must be free again: longer than any ttl, and than any wait in a queue.
const AFTERMATH: Duration = Duration::from_secs(15);

/// What a process may call, the common ones more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    WithoutRenewal,
    Skipping,
    Trying,
    Fair,
    Shared,
    Permits,
    Set,
    AtMost,
    AtLeast,
    Finishing,
    Nested,
    Escaping,
    Exclusive,
}

use Function::{
    AtLeast, AtMost, Escaping, Exclusive, Fair, Finishing, Nested, Permits, Set, Shared, Skipping,
    Trying, WithoutRenewal,
};

const EVERY: &[Function] = &[
    WithoutRenewal,
    Skipping,
    Trying,
    Fair,
    Shared,
    Shared,
    Permits,
    Set,
    Set,
    AtMost,
    AtLeast,
    Finishing,
    Nested,
    Escaping,
    Exclusive,
    Exclusive,
];

/// What a store of sessions cannot do: keep a key after its release.
const NOT_OF_SESSIONS: &[Function] = &[AtLeast];

/// What a majority cannot do either: several holders, and waiters in order.
const NOT_OF_A_MAJORITY: &[Function] = &[AtLeast, Fair, Shared, Permits];

/// The whole scenario, on a store of leases.
pub async fn on_leases() {
    on_store(Store::leases(), &[]).await;
}

/// The whole scenario, on a store of leases that hands keys over to those in line.
pub async fn on_leases_with_a_line() {
    on_store(Store::leases_with_a_line(), &[]).await;
}

/// The whole scenario, on a store that queues its waiters.
pub async fn on_queue() {
    on_store(Store::queue(), &[]).await;
}

/// The whole scenario, on a store of sessions.
pub async fn on_sessions() {
    on_store(Store::session(), NOT_OF_SESSIONS).await;
}

/// The whole scenario, on a majority of three or five nodes.
pub async fn on_majority() {
    on_store(Store::majority([3, 5][sim::random(2)]), NOT_OF_A_MAJORITY).await;
}

async fn on_store(store: Store, unable: &'static [Function]) {
    sim::backend("default", &store);
    let ledger = Ledger::default();
    // With few, everybody waits for everybody. With many, a key that is free must be free.
    let mix = Mix { unable, items: [1, 2, 4, 12][sim::random(4)] };
    let (mut started, mut killed) = (0, 0);
    // Once more if all were killed early.
    while sim::steps() < STEPS {
        let number = started..started + 5 + sim::random(3);
        started = number.end;
        let processes: Vec<_> = number.map(|number| start(number, &ledger, &store, mix)).collect();
        for process in processes {
            match process.await {
                Ok(failed) => assert!(failed.is_none(), "{}", failed.unwrap_or_default()),
                Err(_killed) => killed += 1,
            }
        }
    }
    if killed == 0 {
        // Each process has been told that all its requests are undone.
        let waiters = store.waiters();
        assert!(waiters.is_empty(), "in the store's queues after every shutdown: {waiters:?}");
    }
    sim::calm();
    sim::sleep(AFTERMATH).await;
    ledger.check();
    let left = store.occupied();
    assert!(left.is_empty(), "left behind in the store: {left:?}");
}

/// What the processes of a schedule call.
#[derive(Clone, Copy, Debug)]
struct Mix {
    /// What the store cannot do.
    unable: &'static [Function],
    items: usize,
}

impl Mix {
    fn function(&self) -> Function {
        let able: Vec<_> =
            EVERY.iter().filter(|function| !self.unable.contains(function)).collect();
        *able[sim::random(able.len())]
    }
}

fn start(number: usize, ledger: &Ledger, store: &Store, mix: Mix) -> Process<Option<String>> {
    let (ledger, store) = (ledger.clone(), store.clone());
    sim::process(format!("p{number}"), move || run(number, ledger, store, mix))
}

/// One process: a few tasks that call functions, then an orderly shutdown.
async fn run(number: usize, ledger: Ledger, store: Store, mix: Mix) -> Option<String> {
    let tasks: Vec<_> = (0..=sim::random(2))
        .map(|task| {
            let (who, ledger, store) = (format!("p{number}.{task}"), ledger.clone(), store.clone());
            tokio::spawn(async move { calls(who, ledger, &store, mix).await })
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

async fn calls(who: String, ledger: Ledger, store: &Store, mix: Mix) -> Result<(), String> {
    let mut rounds = 0;
    while sim::steps() < STEPS || rounds == 0 {
        rounds += 1;
        let work = Work {
            who: who.clone(),
            ledger: ledger.clone(),
            steps: sim::random(4),
            pause: Duration::from_millis([0, 0, 20, 350][sim::random(4)]),
        };
        let called = call(mix.function(), mix.items, &work);
        // Some callers give up.
        if sim::random(6) == 0 {
            let patience = Duration::from_millis([1, 30, 400][sim::random(3)]);
            let called = std::pin::pin!(called);
            give_up_after(patience, called).await;
            continue;
        }
        let began = sim::now();
        let result = called.await;
        if let Err(error) = &result {
            sim::note(format!("{who} is told: {error}"));
        }
        check_result(&who, result, began, store)?;
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

async fn call(function: Function, items: usize, work: &Work) -> Result<(), LockError> {
    let item = sim::random(items);
    let other = (item + 1 + sim::random(items)) % (items + 1);
    match function {
        WithoutRenewal => functions::without_renewal(item, work).await,
        Skipping => functions::skipping(item, work).await,
        Trying => functions::trying(item, work).await,
        Fair => functions::fair(item, work).await,
        Shared => functions::shared(item, work).await,
        Permits => functions::permits(item, work).await,
        Set => functions::set(item, other, work).await,
        AtMost => functions::at_most(item, work).await,
        AtLeast => functions::at_least(item, work).await,
        Finishing => functions::finishing(item, work).await,
        Nested => functions::nested(item, work).await,
        Escaping => functions::escaping(item, work).await,
        Exclusive => functions::exclusive(item, work).await,
    }
}

/// How long ago a task may have learned from the store that a key is busy, if it tells others of its process.
const HEARSAY: Duration = Duration::from_secs(2);

/// From when on a key must have been occupied for a call to be told that it is busy.
fn evidence_from(began: Duration, holder: HeldBy) -> Duration {
    if holder != HeldBy::ThisProcess {
        return began;
    }
    let since = began.saturating_sub(HEARSAY);
    // While the process was paused, it learned nothing.
    let (paused, resumed) = sim::last_pause();
    if resumed >= since { since.min(paused.saturating_sub(HEARSAY)) } else { since }
}

pub(crate) fn check_result(
    who: &str,
    result: Result<(), LockError>,
    began: Duration,
    store: &Store,
) -> Result<(), String> {
    match result {
        Err(LockError::Busy { key, holder, .. })
            if !store.was_occupied(key.clone(), evidence_from(began, holder)) =>
        {
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
