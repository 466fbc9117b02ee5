//! Renewals that arrive when the lease has expired and others have held the key since, on a store that restores a lease
//! then. The process that sent one was paused meanwhile, and must not go on when it hears that it holds the key again.

use std::time::Duration;

use dlock_runtime::sim::{self, Process, Store};

use crate::functions::{self, Work};
use crate::ledger::Ledger;

/// A schedule goes on until it has had so many steps.
const STEPS: u64 = 300;

/// The whole scenario: processes that are often paused for about a ttl.
pub async fn late_renewals() {
    sim::backend("default", &Store::restoring_leases());
    let ledger = Ledger::default();
    while sim::steps() < STEPS {
        let processes: Vec<_> = (0..5).map(|number| start(number, &ledger)).collect();
        for _ in 0..60 {
            sim::sleep(up_to(120)).await;
            processes[sim::random(processes.len())].pause(up_to(350));
        }
        for process in processes {
            process.await.ok();
        }
    }
    ledger.check();
}

fn up_to(milliseconds: usize) -> Duration {
    Duration::from_millis(sim::random(milliseconds) as u64)
}

fn start(number: usize, ledger: &Ledger) -> Process<()> {
    let ledger = ledger.clone();
    sim::process(format!("p{number}"), move || async move {
        let mut rounds = 0;
        while sim::steps() < STEPS || rounds == 0 {
            rounds += 1;
            let work = Work {
                who: format!("p{number}"),
                ledger: ledger.clone(),
                steps: 1 + sim::random(4),
                // Some bodies are so short that they fit into the pause of another one.
                pause: Duration::from_millis([0, 0, 400][sim::random(3)]),
            };
            functions::exclusive(0, &work).await.ok();
            // A lease is restored only if nobody waits for the key.
            sim::sleep(up_to(1_500)).await;
        }
    })
}
