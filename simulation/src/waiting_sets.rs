//! Sets that wait long for one key, while the others of their keys are free: anybody may have those meanwhile, tasks of
//! the same process too.

use std::time::Duration;

use dlock_runtime::LockError;
use dlock_runtime::sim::{self, Store};

use crate::functions::{self, Work};
use crate::ledger::Ledger;
use crate::programs::check_result;

/// How long the scenario lasts.
const LENGTH: Duration = Duration::from_secs(5);

/// The key that is held nearly all the time, and one that is mostly free.
const BUSY: usize = 1;
const FREE: usize = 0;

/// The whole scenario: processes whose tasks want both keys, or only the free one.
///
/// # Panics
/// If a promise is broken.
pub async fn waiting_sets() {
    // Without faults, a call is granted the key or told who has it.
    sim::calm();
    let store = Store::leases();
    sim::backend("default", &store);
    let ledger = Ledger::default();
    let holder = sim::process("holder", {
        let ledger = ledger.clone();
        move || async move {
            while sim::now() < LENGTH {
                let work = work("holder", &ledger, 3_000);
                functions::exclusive(BUSY, &work).await.ok();
            }
        }
    });
    let others: Vec<_> = (0..4)
        .map(|number| {
            let (ledger, store) = (ledger.clone(), store.clone());
            sim::process(format!("p{number}"), move || both(number, ledger, store))
        })
        .collect();
    holder.await.ok();
    for other in others {
        let problem = other.await.ok().and_then(Result::err).unwrap_or_default();
        assert!(problem.is_empty(), "{problem}");
    }
    ledger.check();
}

fn work(who: &str, ledger: &Ledger, pause: usize) -> Work {
    let pause = Duration::from_millis(sim::random(pause) as u64);
    Work { who: who.to_owned(), ledger: ledger.clone(), steps: 1, pause }
}

/// One task wants the set, another one now and then the free key, for which it does not wait.
async fn both(number: usize, ledger: Ledger, store: Store) -> Result<(), String> {
    let (who, sets) = (format!("p{number}"), ledger.clone());
    let set = tokio::spawn(async move {
        while sim::now() < LENGTH {
            functions::set(FREE, BUSY, &work("set", &sets, 10)).await.ok();
            sim::sleep(Duration::from_millis(sim::random(400) as u64)).await;
        }
    });
    while sim::now() < LENGTH {
        sim::sleep(Duration::from_millis(sim::random(2_500) as u64)).await;
        let began = sim::now();
        let result = functions::trying(FREE, &work(&who, &ledger, 60)).await;
        if let Err(LockError::Backend { source, .. }) = &result {
            return Err(format!("{who}: the store is blamed: {source}"));
        }
        check_result(&who, result, began, &store)?;
    }
    set.await.map_err(|error| error.to_string())
}
