//! Several keys: all or nothing, and never in a circle.

use std::time::Duration;

use super::super::context::{Context, PATIENCE, ensure, is_free_soon};
use super::super::{Finding, Rule};
use super::rules;
use crate::error::LockError;

pub(super) fn rules() -> Vec<Rule> {
    rules![several_keys_are_taken_all_or_none, several_keys_in_any_order_never_deadlock]
}

async fn several_keys_are_taken_all_or_none(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let (a, b) = (context.key("a"), context.key("b"));
    let held = other.lock(&b).acquire().await.map_err(|error| error.to_string())?;
    let wait = Duration::from_millis(50);
    let refused = registry.lock_all([&a, &b]).wait(wait).acquire().await;
    ensure!(refused.as_ref().is_err_and(LockError::is_busy), "a set with a held key: {refused:?}");
    is_free_soon(&context, &a).await?;
    held.release().await.map_err(|error| error.to_string())?;
    let all = registry.lock_all([&b, &a, &b]).acquire().await.map_err(|e| e.to_string())?;
    let keys: Vec<_> = all.holds().iter().map(|guard| guard.key().clone()).collect();
    ensure!(keys == [a.clone(), b.clone()], "a set of two keys and one repeated holds {keys:?}");
    all.release().await.map_err(|error| error.to_string())?;
    is_free_soon(&context, &a).await?;
    is_free_soon(&context, &b).await
}

async fn several_keys_in_any_order_never_deadlock(context: Context) -> Finding {
    let (one, other) = (context.registry().await?, context.registry().await?);
    let (a, b) = (context.key("a"), context.key("b"));
    let mut tasks = Vec::new();
    for round in 0..10 {
        let (registry, keys) = match round % 2 {
            0 => (&one, [a.clone(), b.clone()]),
            _ => (&other, [b.clone(), a.clone()]),
        };
        let run = registry.lock_all(keys).wait(PATIENCE * 2).run(tokio::task::yield_now());
        tasks.push(tokio::spawn(run));
    }
    for task in tasks {
        task.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    }
    Ok(())
}
