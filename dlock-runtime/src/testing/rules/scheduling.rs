//! Cooperative scheduling: a loop of calls yields to other tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::context::{Context, TIMEOUT, ensure, in_another_runtime};
use super::super::{Finding, Rule};
use super::rules;
use crate::registry::Registry;

pub(super) fn rules() -> Vec<Rule> {
    rules![a_loop_of_calls_does_not_starve_other_tasks]
}

const TASKS: usize = 16;
const TICKS: usize = 4;

async fn a_loop_of_calls_does_not_starve_other_tasks(context: Context) -> Finding {
    let registry = context.registry().await?;
    let over = Arc::new(AtomicBool::new(false));
    for kind in ["apart", "refused", "nested", "set"] {
        let keys = (0..TASKS).map(|task| context.key(&format!("{kind}:{task}")));
        let loops = keys.map(|key| calls(registry.clone(), key, kind, Arc::clone(&over)));
        let loops: Vec<_> = loops.collect();
        // All of them share one thread. If they starve it, this thread stops them.
        let ticking = in_another_runtime(async move {
            let loops: Vec<_> = loops.into_iter().map(tokio::spawn).collect();
            for _ in 0..TICKS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for task in loops {
                task.abort();
            }
        });
        let ticked = tokio::time::timeout(TIMEOUT, ticking).await;
        over.store(true, Ordering::SeqCst);
        ensure!(ticked.is_ok(), "{TASKS} tasks in a loop of calls ({kind}) starved a timer");
        ticked.map_err(|error| error.to_string())??;
        over.store(false, Ordering::SeqCst);
    }
    Ok(())
}

/// Calls in a loop until `over` is set or the task is aborted.
async fn calls(registry: Registry, key: crate::LockKey, kind: &str, over: Arc<AtomicBool>) {
    let beside = crate::LockKey::from(format!("{key}:beside"));
    let lock = || registry.lock(&key);
    while !over.load(Ordering::SeqCst) {
        match kind {
            "refused" => {
                let held = lock().acquire().await;
                while !over.load(Ordering::SeqCst) {
                    let _ = lock().wait(Duration::ZERO).acquire().await;
                }
                drop(held);
            }
            "nested" => {
                let body = async {
                    while !over.load(Ordering::SeqCst) {
                        let _ = lock().run(std::future::ready(())).await;
                    }
                };
                let _ = lock().run(body).await;
            }
            "set" => {
                let set = registry.lock_all([&key, &beside]);
                let _ = set.run(std::future::ready(())).await;
            }
            _ => {
                let _ = lock().run(std::future::ready(())).await;
            }
        }
    }
}
