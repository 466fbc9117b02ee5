//! Dropping a future at any point leaves nothing behind.

use std::future::pending;
use std::time::Duration;

use futures_util::future::join_all;

use super::super::context::{Context, LONG, TIMEOUT, is_free_soon};
use super::super::{Call, Finding, Rule, Steps, step};
use super::rules;

/// More polls than any path needs. A rule fails if a path is longer, because the rest would not be checked.
const MAX_STEPS: usize = 200;

/// Drops at once, and after the requests that were sent have been executed.
const LINGER: [Duration; 2] = [Duration::ZERO, Duration::from_millis(10)];

pub(super) fn rules() -> Vec<Rule> {
    rules![
        a_run_dropped_at_any_step_frees_its_key,
        a_waiter_dropped_at_any_step_leaves_the_queue,
        a_release_dropped_at_any_step_completes_in_the_background,
        a_hold_dropped_during_its_renewal_is_released,
        an_acquire_dropped_before_its_reply_leaves_no_lease,
    ]
}

async fn a_run_dropped_at_any_step_frees_its_key(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    for linger in LINGER {
        for polls in 1.. {
            if polls == MAX_STEPS {
                return Err(format!("not complete after {MAX_STEPS} polls"));
            }
            let run = registry.lock(&key).ttl(LONG).wait(TIMEOUT).run(async {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            });
            let steps = step(polls, linger, run).await;
            let free = is_free_soon(&context, &key).await;
            free.map_err(|error| format!("dropped at step {polls}: {error}"))?;
            if let Steps::Completed(result) = steps {
                result.map_err(|error| error.to_string())?;
                break;
            }
        }
    }
    Ok(())
}

async fn a_waiter_dropped_at_any_step_leaves_the_queue(context: Context) -> Finding {
    let (holder, waiter) = (context.registry().await?, context.registry().await?);
    let key = context.key("k");
    for polls in 1..20 {
        let guard = holder.lock(&key).acquire().await.map_err(|error| error.to_string())?;
        // Some waiters are dropped while they wait, some during the hand-over.
        let linger = LINGER[polls % 2];
        let wait = step(polls, linger, waiter.lock(&key).ttl(LONG).wait(TIMEOUT).acquire());
        let release = async {
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
            guard.release().await
        };
        let (steps, released) = tokio::join!(tokio::time::timeout(TIMEOUT, wait), release);
        released.map_err(|error| error.to_string())?;
        drop(steps);
        is_free_soon(&context, &key).await.map_err(|e| format!("dropped at step {polls}: {e}"))?;
    }
    Ok(())
}

async fn a_release_dropped_at_any_step_completes_in_the_background(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    for polls in 0..MAX_STEPS {
        let guard = registry.lock(&key).acquire().await.map_err(|error| error.to_string())?;
        let steps = step(polls, LINGER[polls % 2], guard.release()).await;
        is_free_soon(&context, &key).await.map_err(|e| format!("dropped at step {polls}: {e}"))?;
        if let Steps::Completed(result) = steps {
            return result.map_err(|error| error.to_string());
        }
    }
    Err(format!("not complete after {MAX_STEPS} polls"))
}

/// The store has executed the renewal, but the holder is dropped before the answer arrives.
async fn a_hold_dropped_during_its_renewal_is_released(context: Context) -> Finding {
    let rounds = (0..3).map(|polls| {
        let context = context.clone();
        async move {
            let (registry, store) = context.intercepted().await?;
            let key = context.key(&polls.to_string());
            store.delay(Call::Renew);
            let held = registry.lock(&key).ttl(LONG).run(pending::<()>());
            let dropped = async {
                // The first renewal is due after a third of the ttl.
                tokio::select! {
                    _ = held => {}
                    () = store.reached(Call::Renew, 1) => {}
                }
                for _ in 0..polls {
                    tokio::task::yield_now().await;
                }
            };
            dropped.await;
            store.heal();
            is_free_soon(&context, &key).await.map_err(|e| format!("dropped during a renewal: {e}"))
        }
    });
    join_all(rounds).await.into_iter().collect()
}

async fn an_acquire_dropped_before_its_reply_leaves_no_lease(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let key = context.key("k");
    store.delay(Call::Acquire);
    let acquire = registry.lock(&key).ttl(LONG).acquire();
    let gone = tokio::time::timeout(Duration::from_millis(50), acquire).await;
    drop(gone);
    is_free_soon(&context, &key).await
}
