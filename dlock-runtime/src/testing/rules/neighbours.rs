//! Tasks of one process do not keep each other from a free key, and a store failure is reported to all of them.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::super::context::{Context, TIMEOUT, ensure, force, is_free_soon, short};
use super::super::{Call, Finding, Rule};
use super::rules;
use crate::error::LockError;
use crate::options::OnLost;
use crate::registry::Registry;

pub(super) fn rules() -> Vec<Rule> {
    let mut all = rules![
        a_lost_hold_does_not_block_its_own_process,
        max_hold_ends_a_body_after_a_loss,
        overlapping_sets_of_one_process_never_deadlock,
        a_failure_is_not_reported_as_busy_to_queued_tasks,
        an_outage_is_not_reported_as_busy_to_queued_tasks,
    ];
    all.extend(rules![if |able| able.atomic_sets; a_waiting_set_does_not_block_its_own_process]);
    all
}

/// A body continues after its lease was lost. The store grants the key again, including to the same process.
async fn a_lost_hold_does_not_block_its_own_process(context: Context) -> Finding {
    for (policy, name) in [(OnLost::Finish, "finish"), (OnLost::Keep, "keep")] {
        let (registry, other) = (context.registry().await?, context.registry().await?);
        let key = context.key(name);
        let ttl = short(&context.backend().await?, Duration::from_millis(900));
        let (enter, entered) = oneshot::channel();
        let (end, is_over) = oneshot::channel::<()>();
        let body = registry.lock(&key).ttl(ttl).on_lost(policy).run(async move {
            let _ = enter.send(());
            let _ = is_over.await;
        });
        let body = tokio::spawn(body);
        entered.await.map_err(|error| error.to_string())?;
        force(&other, &key).await?;
        let next = registry.lock(&key).wait(ttl + TIMEOUT).acquire().await;
        let next =
            next.map_err(|error| format!("an acquire in the process that lost its hold: {error}"))?;
        drop(end);
        let ended = body.await.map_err(|error| error.to_string())?;
        ensure!(
            matches!(
                (policy, &ended),
                (OnLost::Keep, Ok(())) | (_, Err(LockError::Lost { completed: true, .. }))
            ),
            "a body that continued after a loss ended with {ended:?}"
        );
        ensure!(next.is_held(), "the end of a body whose hold was lost ended the next hold");
        next.release().await.map_err(|error| error.to_string())?;
        is_free_soon(&context, &key).await?;
    }
    Ok(())
}

async fn max_hold_ends_a_body_after_a_loss(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let ttl = short(&context.backend().await?, Duration::from_millis(900));
    for (policy, name) in [(OnLost::Finish, "finish"), (OnLost::Keep, "keep")] {
        let key = context.key(name);
        let lock = registry.lock(&key).ttl(ttl).on_lost(policy).max_hold(ttl * 2);
        let body = lock.run(async {
            force(&other, &key).await?;
            std::future::pending::<Finding>().await
        });
        match tokio::time::timeout(ttl * 2 + TIMEOUT, body).await {
            Ok(Err(LockError::HeldTooLong { .. } | LockError::Lost { completed: false, .. })) => {}
            Ok(ended) => {
                return Err(format!("a body that exceeded its max_hold ended with {ended:?}"));
            }
            Err(_) => return Err("after a loss, max_hold did not end the body".to_owned()),
        }
    }
    Ok(())
}

async fn a_waiting_set_does_not_block_its_own_process(context: Context) -> Finding {
    let holder = context.registry().await?;
    let (registry, store) = context.intercepted().await?;
    let (a, b) = (context.key("a"), context.key("b"));
    let held = holder.lock(&b).acquire().await.map_err(|error| error.to_string())?;
    let set = tokio::spawn(registry.lock_all([&a, &b]).wait(TIMEOUT * 2).acquire());
    store.waits_in_queue().await;
    let free = registry.lock(&a).wait(TIMEOUT / 2).acquire().await;
    let free = free.map_err(|error| format!("a free key of a waiting set: {error}"))?;
    ensure!(!set.is_finished(), "a set was granted although its second key is held");
    held.release().await.map_err(|error| error.to_string())?;
    free.release().await.map_err(|error| error.to_string())?;
    let set = set.await.map_err(|error| error.to_string())?;
    let set = set.map_err(|error| format!("a set that was overtaken once: {error}"))?;
    set.release().await.map_err(|error| error.to_string())?;
    is_free_soon(&context, &a).await?;
    is_free_soon(&context, &b).await
}

async fn overlapping_sets_of_one_process_never_deadlock(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let [a, b, c] = ["a", "b", "c"].map(|name| context.key(name));
    let sets = [vec![&a, &b], vec![&c, &b], vec![&c, &a], vec![&b], vec![&a, &c, &b], vec![&a]];
    let each = (0..30).map(|round: usize| {
        // Sometimes another process, so that some of them wait for the store too.
        let registry = if round % 5 == 4 { &other } else { &registry };
        let keys = sets[round % sets.len()].clone();
        let lock = registry.lock_all(keys).wait(TIMEOUT * 2);
        tokio::spawn(lock.run(tokio::task::yield_now()))
    });
    let each: Vec<_> = each.collect();
    for task in each {
        let ended = task.await.map_err(|error| error.to_string())?;
        ended.map_err(|error| format!("overlapping sets: {error}"))?;
    }
    for key in [&a, &b, &c] {
        is_free_soon(&context, key).await?;
    }
    Ok(())
}

/// The number of tasks in the local queue.
const QUEUE: usize = 12;

async fn no_task_is_busy(context: &Context, registry: &Registry) -> Finding {
    let key = context.key("k");
    let lock = || registry.lock(&key).wait(Duration::from_millis(300));
    let ended = join_all((0..QUEUE).map(|_| lock().acquire())).await;
    for (position, answer) in ended.iter().enumerate() {
        ensure!(
            matches!(answer, Err(LockError::Backend { .. })),
            "the task at position {position} of the queue got {answer:?} from a failing store"
        );
    }
    Ok(())
}

/// Nobody holds the key, so no task may get `Busy`.
async fn a_failure_is_not_reported_as_busy_to_queued_tasks(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    store.fail(Call::Acquire);
    no_task_is_busy(&context, &registry).await?;
    store.heal();
    is_free_soon(&context, &context.key("k")).await
}

/// The same with a store that does not answer.
async fn an_outage_is_not_reported_as_busy_to_queued_tasks(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    store.delay(Call::Acquire);
    no_task_is_busy(&context, &registry).await?;
    store.heal();
    is_free_soon(&context, &context.key("k")).await
}
