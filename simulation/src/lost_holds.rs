//! Holds that are lost because the store is paused for longer than a lease, with requests on their way that nobody waits
//! for any more.

use std::time::Duration;

use dlock_runtime::Registry;
use dlock_runtime::sim::{self, Process, Store};

use crate::functions::{self, Work};
use crate::ledger::Ledger;

/// A schedule goes on until it has had so many steps.
const STEPS: u64 = 300;

/// The whole scenario: a store that is often paused.
///
/// # Panics
/// If a promise is broken.
pub async fn lost_holds() {
    let store = Store::leases();
    sim::backend("default", &store);
    let ledger = Ledger::default();
    let mut killed = false;
    while sim::steps() < STEPS {
        let processes: Vec<_> = (0..5).map(|number| start(number, &ledger)).collect();
        for _ in 0..6 {
            sim::sleep(up_to(700)).await;
            store.pause(up_to(1_500));
        }
        for process in processes {
            killed |= process.await.is_err();
        }
    }
    ledger.check();
    let waiters = store.waiters();
    assert!(killed || waiters.is_empty(), "in the queue after every shutdown: {waiters:?}");
}

fn up_to(milliseconds: usize) -> Duration {
    Duration::from_millis(sim::random(milliseconds) as u64)
}

/// A process whose calls wait in the store's queue.
fn start(number: usize, ledger: &Ledger) -> Process<()> {
    let ledger = ledger.clone();
    sim::process(format!("p{number}"), move || async move {
        let mut rounds = 0;
        while sim::steps() < STEPS || rounds == 0 {
            rounds += 1;
            let who = format!("p{number}");
            let (steps, pause) = (sim::random(3), up_to(400));
            let work = Work { who, ledger: ledger.clone(), steps, pause };
            functions::fair(0, &work).await.ok();
        }
        let registry = Registry::current().expect("each process has a registry");
        registry.shutdown(Duration::from_secs(100)).await.expect("nothing is stuck");
    })
}
