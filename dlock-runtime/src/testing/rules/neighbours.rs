//! Tasks of one process keep nobody of their own from what is free, and hear of a failure as a failure.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::super::context::{Context, PATIENCE, ensure, force, is_free_soon, short};
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

/// The lease is lost and its body goes on: the store grants the key again, also to this very process.
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
        let next = registry.lock(&key).wait(ttl + PATIENCE).acquire().await;
        let next = next.map_err(|error| format!("a neighbour of a hold that was lost: {error}"))?;
        drop(end);
        let ended = body.await.map_err(|error| error.to_string())?;
        ensure!(
            matches!(
                (policy, &ended),
                (OnLost::Keep, Ok(())) | (_, Err(LockError::Lost { completed: true, .. }))
            ),
            "a body that went on after a loss ended with {ended:?}"
        );
        ensure!(next.is_held(), "the end of a lost hold's body ended its neighbour's hold");
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
        match tokio::time::timeout(ttl * 2 + PATIENCE, body).await {
            Ok(Err(LockError::HeldTooLong { .. } | LockError::Lost { completed: false, .. })) => {}
            Ok(ended) => return Err(format!("a body that ran too long ended with {ended:?}")),
            Err(_) => return Err("after a loss, max_hold ended no body any more".to_owned()),
        }
    }
    Ok(())
}

async fn a_waiting_set_does_not_block_its_own_process(context: Context) -> Finding {
    let holder = context.registry().await?;
    let (registry, store) = context.intercepted().await?;
    let (a, b) = (context.key("a"), context.key("b"));
    let held = holder.lock(&b).acquire().await.map_err(|error| error.to_string())?;
    let set = tokio::spawn(registry.lock_all([&a, &b]).wait(PATIENCE * 2).acquire());
    store.stands_in_line().await;
    let free = registry.lock(&a).wait(PATIENCE / 2).acquire().await;
    let free = free.map_err(|error| format!("a free key that a waiting set wants: {error}"))?;
    ensure!(!set.is_finished(), "a set was granted whose second key is held");
    held.release().await.map_err(|error| error.to_string())?;
    free.release().await.map_err(|error| error.to_string())?;
    let set = set.await.map_err(|error| error.to_string())?;
    let set = set.map_err(|error| format!("a set that was passed once: {error}"))?;
    set.release().await.map_err(|error| error.to_string())?;
    is_free_soon(&context, &a).await?;
    is_free_soon(&context, &b).await
}

async fn overlapping_sets_of_one_process_never_deadlock(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let [a, b, c] = ["a", "b", "c"].map(|name| context.key(name));
    let sets = [vec![&a, &b], vec![&c, &b], vec![&c, &a], vec![&b], vec![&a, &c, &b], vec![&a]];
    let each = (0..30).map(|round: usize| {
        // A stranger now and then, so that some of them wait for the store as well.
        let registry = if round % 5 == 4 { &other } else { &registry };
        let keys = sets[round % sets.len()].clone();
        let lock = registry.lock_all(keys).wait(PATIENCE * 2);
        tokio::spawn(lock.run(tokio::task::yield_now()))
    });
    let each: Vec<_> = each.collect();
    for task in each {
        let ended = task.await.map_err(|error| error.to_string())?;
        ended.map_err(|error| format!("sets that overlap: {error}"))?;
    }
    for key in [&a, &b, &c] {
        is_free_soon(&context, key).await?;
    }
    Ok(())
}

/// As many as wait here, one behind the other.
const QUEUE: usize = 12;

async fn nobody_is_told_of_a_holder(context: &Context, registry: &Registry) -> Finding {
    let key = context.key("k");
    let lock = || registry.lock(&key).wait(Duration::from_millis(300));
    let ended = join_all((0..QUEUE).map(|_| lock().acquire())).await;
    for (place, answer) in ended.iter().enumerate() {
        ensure!(
            matches!(answer, Err(LockError::Backend { .. })),
            "place {place} in the queue heard of a failing store as {answer:?}"
        );
    }
    Ok(())
}

/// Nobody holds the key, and nobody could be told so.
async fn a_failure_is_not_reported_as_busy_to_queued_tasks(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    store.fail(Call::Acquire);
    nobody_is_told_of_a_holder(&context, &registry).await?;
    store.heal();
    is_free_soon(&context, &context.key("k")).await
}

/// The same of a store that does not answer.
async fn an_outage_is_not_reported_as_busy_to_queued_tasks(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    store.hold_up(Call::Acquire);
    nobody_is_told_of_a_holder(&context, &registry).await?;
    store.heal();
    is_free_soon(&context, &context.key("k")).await
}
