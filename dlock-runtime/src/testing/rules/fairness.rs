//! First come, first served, across all processes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::super::context::{
    Context, LONG, SOON, TIMEOUT, ensure, granted, in_three_tries, is_free_soon, kill, releases,
    short, tries,
};
use super::super::{Finding, Rule, Steps, step};
use super::rules;
use crate::backend::{Backend, Claim};
use crate::error::LockError;
use crate::key::LockKey;

pub(super) fn rules() -> Vec<Rule> {
    rules![
        if |able| able.fair;
        waiters_of_all_processes_are_served_in_order,
        nobody_overtakes_a_fair_waiter,
        an_abandoned_queue_position_is_freed_at_once,
        a_fair_waiter_that_timed_out_delays_nobody,
        a_dead_fair_waiter_delays_the_next_one_only_briefly,
        a_fair_waiter_dropped_at_any_step_leaves_the_queue,
    ]
}

async fn waiters_of_all_processes_are_served_in_order(context: Context) -> Finding {
    in_three_tries(&context, |key| six_waiters_are_served_in_order(&context, key)).await
}

async fn six_waiters_are_served_in_order(context: &Context, key: LockKey) -> Finding {
    const WAITERS: usize = 6;
    let holder = context.registry().await?;
    let guard = holder.lock(&key).acquire().await.map_err(|error| error.to_string())?;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for number in 0..WAITERS {
        let (registry, store) = context.intercepted().await?;
        let order = Arc::clone(&order);
        let lock = registry.lock(&key).fair(true).wait(TIMEOUT);
        waiters.push(tokio::spawn(async move {
            let body = async { order.lock().expect("not poisoned").push(number) };
            lock.run(body).await
        }));
        store.waits_in_queue().await;
    }
    guard.release().await.map_err(|error| error.to_string())?;
    for waiter in waiters {
        waiter.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    }
    let order = order.lock().expect("not poisoned").clone();
    ensure!(
        order.is_sorted() && order.len() == WAITERS,
        "waiters were served in the order {order:?}"
    );
    is_free_soon(context, &key).await
}

async fn nobody_overtakes_a_fair_waiter(context: Context) -> Finding {
    in_three_tries(&context, |key| a_polling_rival_does_not_overtake(&context, key)).await
}

async fn a_polling_rival_does_not_overtake(context: &Context, key: LockKey) -> Finding {
    let (holder, (registry, store)) = (context.registry().await?, context.intercepted().await?);
    let other = context.backend().await?;
    let guard = holder.lock(&key).acquire().await.map_err(|error| error.to_string())?;
    let waiter = tokio::spawn(registry.lock(&key).fair(true).wait(TIMEOUT).acquire());
    store.waits_in_queue().await;
    let rival = Claim::new(key.clone(), LONG);
    let release = async { guard.release().await.map_err(|error| error.to_string()) };
    let poll = async {
        // It tries at the moment of the release, and would often win without fairness.
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until {
            if tries(&other, &rival).await? {
                releases(&other, &rival).await?;
                return Err("somebody overtook a fair waiter".to_owned());
            }
        }
        Ok(())
    };
    let (released, overtaken) = tokio::join!(release, poll);
    released?;
    overtaken?;
    let guard = waiter.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    guard.release().await.map_err(|error| error.to_string())?;
    is_free_soon(context, &key).await
}

/// Joins the queue behind the holder of the key.
async fn join_queue(backend: &dyn Backend, claim: &Claim) -> Finding {
    if backend.capabilities().queue {
        let turn = tokio::time::timeout(Duration::from_millis(300), backend.acquire_queued(claim));
        ensure!(turn.await.is_err(), "a held key was granted");
    } else {
        ensure!(!tries(backend, claim).await?, "a held key was granted");
    }
    Ok(())
}

async fn an_abandoned_queue_position_is_freed_at_once(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let held = Claim::new(key.clone(), LONG);
    granted(&one, &held).await?;
    let waiting = Claim::new(key.clone(), LONG).with_fair(true).with_wait_left(LONG);
    join_queue(&other, &waiting).await?;
    releases(&other, &waiting).await?;
    ensure!(releases(&one, &held).await?, "the holder's release found nothing held");
    let next = Claim::new(key, LONG);
    ensure!(tries(&one, &next).await?, "an abandoned queue position still blocks others");
    releases(&one, &next).await?;
    Ok(())
}

async fn a_fair_waiter_that_timed_out_delays_nobody(context: Context) -> Finding {
    let (holder, (first, store)) = (context.registry().await?, context.intercepted().await?);
    let (second, behind) = context.intercepted().await?;
    let key = context.key("k");
    let guard = holder.lock(&key).acquire().await.map_err(|error| error.to_string())?;
    let wait = Duration::from_millis(1_200);
    let gives_up = tokio::spawn(first.lock(&key).fair(true).wait(wait).acquire());
    store.waits_in_queue().await;
    let waiter = tokio::spawn(second.lock(&key).fair(true).wait(TIMEOUT).acquire());
    behind.waits_in_queue().await;
    let gave_up = gives_up.await.map_err(|error| error.to_string())?;
    ensure!(gave_up.as_ref().is_err_and(LockError::is_busy), "a held key: {gave_up:?}");
    first.shutdown(TIMEOUT).await.map_err(|error| error.to_string())?;
    guard.release().await.map_err(|error| error.to_string())?;
    let guard = waiter.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    guard.release().await.map_err(|error| error.to_string())?;
    is_free_soon(&context, &key).await
}

async fn a_dead_fair_waiter_delays_the_next_one_only_briefly(context: Context) -> Finding {
    let (holder, dead) = (context.backend().await?, context.backend().await?);
    let (registry, store) = context.intercepted().await?;
    let key = context.key("k");
    let held = Claim::new(key.clone(), LONG);
    granted(&holder, &held).await?;
    let mut waiting = Claim::new(key.clone(), LONG).with_fair(true).with_wait_left(LONG);
    waiting.ttl = short(&dead, Duration::from_secs(1));
    let queue = dead.capabilities().queue;
    join_queue(&dead, &waiting).await?;
    let waiter = tokio::spawn(registry.lock(&key).fair(true).wait(TIMEOUT * 2).acquire());
    store.waits_in_queue().await;
    let _rest = kill(dead);
    let began = Instant::now();
    ensure!(releases(&holder, &held).await?, "the holder's release found nothing held");
    let guard = waiter.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let took = began.elapsed();
    let limit = if queue { waiting.ttl * 2 + SOON } else { SOON };
    ensure!(took < limit, "a dead waiter delayed the next one by {took:?}");
    guard.release().await.map_err(|error| error.to_string())?;
    is_free_soon(&context, &key).await
}

async fn a_fair_waiter_dropped_at_any_step_leaves_the_queue(context: Context) -> Finding {
    let (holder, waiter) = (context.registry().await?, context.registry().await?);
    let key = context.key("k");
    for polls in 1..20 {
        let guard = holder.lock(&key).acquire().await.map_err(|error| error.to_string())?;
        let linger = Duration::from_millis(if polls % 2 == 0 { 10 } else { 0 });
        let lock = waiter.lock(&key).ttl(LONG).fair(true).wait(TIMEOUT);
        let wait = step(polls, linger, lock.acquire());
        let release = async {
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
            guard.release().await
        };
        let (steps, released) = tokio::join!(tokio::time::timeout(TIMEOUT, wait), release);
        released.map_err(|error| error.to_string())?;
        if let Ok(Steps::Completed(guard)) = steps {
            drop(guard);
        }
        is_free_soon(&context, &key).await.map_err(|e| format!("dropped at step {polls}: {e}"))?;
    }
    Ok(())
}
