//! Many at once: everybody gets through, one at a time, with tokens that grow.

use std::sync::{Arc, Mutex, PoisonError};

use super::super::context::{Context, LIMIT, ensure, is_free_soon, left_in};
use super::super::{Finding, Rule};
use super::rules;
use crate::key::LockKey;
use crate::registry::Registry;

/// A load of their own: other rules would be late beside them.
pub(super) fn rules() -> Vec<Rule> {
    rules![many_tasks_of_one_process_all_acquire, many_tasks_of_several_processes_all_acquire]
}

/// What the holders do one after the other: reading and writing are apart, and others run in between.
#[derive(Default)]
struct Till {
    count: usize,
    last_token: Option<crate::FencingToken>,
    backwards: Option<(crate::FencingToken, crate::FencingToken)>,
}

async fn pays_in(registry: Registry, key: LockKey, till: Arc<Mutex<Till>>) -> Finding {
    let open = || till.lock().unwrap_or_else(PoisonError::into_inner);
    let guard = registry.lock(&key).wait(LIMIT).acquire().await;
    let guard = guard.map_err(|error| format!("one of a crowd: {error}"))?;
    let (read, token) = (open().count, guard.fencing_token());
    tokio::task::yield_now().await;
    {
        let mut till = open();
        till.count = read + 1;
        if let Some(last) = till.last_token.filter(|last| *last >= token) {
            till.backwards = Some((last, token));
        }
        till.last_token = Some(token);
    }
    guard.release().await.map_err(|error| format!("one of a crowd: {error}"))
}

async fn crowd(context: &Context, processes: usize, tasks: usize) -> Finding {
    let key = context.key("k");
    let till = Arc::<Mutex<Till>>::default();
    let (mut registries, mut all) = (Vec::new(), Vec::new());
    for _ in 0..processes {
        let registry = context.registry().await?;
        for _ in 0..tasks {
            let pays = pays_in(registry.clone(), key.clone(), Arc::clone(&till));
            all.push(tokio::spawn(pays));
        }
        registries.push(registry);
    }
    for task in all {
        task.await.map_err(|error| error.to_string())??;
    }
    let everybody = processes * tasks;
    let (counted, backwards) = {
        let till = till.lock().unwrap_or_else(PoisonError::into_inner);
        (till.count, till.backwards)
    };
    ensure!(counted == everybody, "{} of {everybody} updates were lost", everybody - counted);
    if let Some((earlier, later)) = backwards {
        return Err(format!("the token {later} came after {earlier}"));
    }
    is_free_soon(context, &key).await?;
    for registry in &registries {
        let left = left_in(registry);
        ensure!(left.is_none(), "a crowd left {} behind", left.unwrap_or_default());
    }
    Ok(())
}

async fn many_tasks_of_one_process_all_acquire(context: Context) -> Finding {
    crowd(&context, 1, 500).await
}

async fn many_tasks_of_several_processes_all_acquire(context: Context) -> Finding {
    crowd(&context, 4, 60).await
}
