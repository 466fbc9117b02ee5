//! Many tasks at once: all of them acquire the lock, one at a time, with growing tokens.

use std::sync::{Arc, Mutex, PoisonError};

use super::super::context::{Context, LIMIT, ensure, is_free_soon, leftovers};
use super::super::{Finding, Rule};
use super::rules;
use crate::key::LockKey;
use crate::registry::Registry;

/// These rules load the store so much that they would delay others.
pub(super) fn rules() -> Vec<Rule> {
    rules![many_tasks_of_one_process_all_acquire, many_tasks_of_several_processes_all_acquire]
}

/// State that the holders update in turn. Other tasks run between the read and the write.
#[derive(Default)]
struct Till {
    count: usize,
    last_token: Option<crate::FencingToken>,
    not_larger: Option<(crate::FencingToken, crate::FencingToken)>,
}

async fn deposit(registry: Registry, key: LockKey, till: Arc<Mutex<Till>>) -> Finding {
    let open = || till.lock().unwrap_or_else(PoisonError::into_inner);
    let guard = registry.lock(&key).wait(LIMIT).acquire().await;
    let guard = guard.map_err(|error| format!("one of many tasks: {error}"))?;
    let (read, token) = (open().count, guard.fencing_token());
    tokio::task::yield_now().await;
    {
        let mut till = open();
        till.count = read + 1;
        if let Some(last) = till.last_token.filter(|last| *last >= token) {
            till.not_larger = Some((last, token));
        }
        till.last_token = Some(token);
    }
    guard.release().await.map_err(|error| format!("one of many tasks: {error}"))
}

async fn crowd(context: &Context, processes: usize, tasks: usize) -> Finding {
    let key = context.key("k");
    let till = Arc::<Mutex<Till>>::default();
    let (mut registries, mut all) = (Vec::new(), Vec::new());
    for _ in 0..processes {
        let registry = context.registry().await?;
        for _ in 0..tasks {
            let deposit = deposit(registry.clone(), key.clone(), Arc::clone(&till));
            all.push(tokio::spawn(deposit));
        }
        registries.push(registry);
    }
    for task in all {
        task.await.map_err(|error| error.to_string())??;
    }
    let expected = processes * tasks;
    let (counted, not_larger) = {
        let till = till.lock().unwrap_or_else(PoisonError::into_inner);
        (till.count, till.not_larger)
    };
    ensure!(counted == expected, "{} of {expected} updates were lost", expected - counted);
    if let Some((earlier, later)) = not_larger {
        return Err(format!("the token {later} was issued after {earlier}"));
    }
    is_free_soon(context, &key).await?;
    for registry in &registries {
        let left = leftovers(registry);
        ensure!(left.is_none(), "left behind: {}", left.unwrap_or_default());
    }
    Ok(())
}

async fn many_tasks_of_one_process_all_acquire(context: Context) -> Finding {
    crowd(&context, 1, 500).await
}

async fn many_tasks_of_several_processes_all_acquire(context: Context) -> Finding {
    crowd(&context, 4, 60).await
}
