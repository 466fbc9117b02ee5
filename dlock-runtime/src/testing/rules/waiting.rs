//! Waiters wake up, time out on time, keep their order and send few requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::super::context::{Context, LONG, TIMEOUT, ensure, granted, releases};
use super::super::{Call, Finding, Rule};
use super::rules;
use crate::backend::{Backend, Claim};
use crate::error::LockError;
use crate::options::Handover;

pub(super) fn rules() -> Vec<Rule> {
    rules![
        a_watch_reports_a_release,
        a_waiter_times_out_at_its_deadline,
        a_zero_wait_makes_one_attempt,
        waiters_of_one_process_keep_their_order,
        queued_tasks_send_no_extra_requests,
        no_body_runs_while_the_backend_fails,
        a_transient_failure_is_retried,
    ]
}

async fn a_watch_reports_a_release(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    if !one.capabilities().push {
        return Ok(());
    }
    let holder = Claim::new(context.key("k"), LONG);
    for round in 0..5 {
        granted(&one, &holder).await?;
        let mut watch = other.watch(&holder.key).await.map_err(|error| error.to_string())?;
        // Half of the rounds release before anybody listens, which must not be missed either.
        if round % 2 == 0 {
            releases(&one, &holder).await?;
            let heard = tokio::time::timeout(TIMEOUT, watch.changed()).await;
            ensure!(heard.is_ok(), "a release before listening was missed in round {round}");
        } else {
            let listen = async { tokio::time::timeout(TIMEOUT, watch.changed()).await };
            let (heard, released) = tokio::join!(listen, releases(&one, &holder));
            released?;
            ensure!(heard.is_ok(), "a release was missed in round {round}");
        }
    }
    Ok(())
}

async fn a_waiter_times_out_at_its_deadline(context: Context) -> Finding {
    let (one, other) = (context.registry().await?, context.registry().await?);
    let key = context.key("k");
    let guard = one.lock(&key).acquire().await.map_err(|error| error.to_string())?;
    let wait = Duration::from_millis(300);
    for registry in [&one, &other] {
        let began = Instant::now();
        let answer = registry.lock(&key).wait(wait).acquire().await;
        let took = began.elapsed();
        let Err(LockError::Busy { waited, .. }) = answer else {
            return Err(format!("an acquire of a held key returned {answer:?}"));
        };
        ensure!(took >= wait && waited >= wait, "timed out after {took:?} of {wait:?}");
        ensure!(took < wait + TIMEOUT, "timed out only after {took:?} of {wait:?}");
    }
    guard.release().await.map_err(|error| error.to_string())
}

async fn a_zero_wait_makes_one_attempt(context: Context) -> Finding {
    let holder = context.registry().await?;
    let (registry, store) = context.intercepted().await?;
    let key = context.key("k");
    let guard = holder.lock(&key).acquire().await.map_err(|error| error.to_string())?;
    let answer = registry.lock(&key).wait(Duration::ZERO).acquire().await;
    ensure!(answer.as_ref().is_err_and(LockError::is_busy), "a held key: {answer:?}");
    ensure!(
        store.count(Call::Acquire) == 1,
        "{} attempts with a zero wait",
        store.count(Call::Acquire)
    );
    guard.release().await.map_err(|error| error.to_string())
}

async fn waiters_of_one_process_keep_their_order(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    let order = Arc::new(Mutex::new(Vec::new()));
    let guard = registry.lock(&key).acquire().await.map_err(|error| error.to_string())?;
    let mut waiters = Vec::new();
    for number in 0..10 {
        let lock = registry.lock(&key).wait(TIMEOUT);
        let order = Arc::clone(&order);
        let mut waiter = Box::pin(lock.run(async move {
            order.lock().expect("not poisoned").push(number);
        }));
        // The first poll puts it into the queue.
        std::future::poll_fn(|cx| {
            let _ = waiter.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
        waiters.push(tokio::spawn(waiter));
    }
    guard.release().await.map_err(|error| error.to_string())?;
    for waiter in waiters {
        waiter.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    }
    let order = order.lock().expect("not poisoned").clone();
    ensure!(order.is_sorted() && order.len() == 10, "waiters were served in the order {order:?}");
    Ok(())
}

async fn queued_tasks_send_no_extra_requests(context: Context) -> Finding {
    const WAITERS: usize = 50;
    for handover in [Handover::OFF, Handover::DEFAULT] {
        let (registry, store) = context.intercepted().await?;
        let key = context.key("k");
        let lock = || registry.lock(&key).wait(TIMEOUT * 2).handover(handover);
        let guard = lock().acquire().await.map_err(|error| error.to_string())?;
        let waiters: Vec<_> =
            (0..WAITERS).map(|_| tokio::spawn(lock().run(std::future::ready(())))).collect();
        tokio::task::yield_now().await;
        ensure!(
            store.count(Call::Acquire) == 1,
            "waiters sent requests for a key that this process holds"
        );
        guard.release().await.map_err(|error| error.to_string())?;
        for waiter in waiters {
            waiter.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        }
        let (acquires, releases) = (store.count(Call::Acquire), store.count(Call::Release));
        let each = WAITERS + 1;
        let enough = if handover.is_off() { acquires == each } else { acquires <= each };
        ensure!(
            enough && releases == acquires,
            "{WAITERS} waiters and a holder made {acquires} acquires and {releases} releases ({handover:?})"
        );
    }
    Ok(())
}

async fn no_body_runs_while_the_backend_fails(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    store.fail(Call::Acquire);
    let lock = registry.lock(context.key("k")).wait(Duration::from_millis(100));
    let mut ran = false;
    let answer = lock.run(async { ran = true }).await;
    ensure!(!ran, "the body ran without the lock");
    ensure!(
        matches!(answer, Err(LockError::Backend { .. })),
        "a failing backend was reported as {answer:?}"
    );
    Ok(())
}

async fn a_transient_failure_is_retried(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    store.fail(Call::Acquire);
    let acquire = registry.lock(context.key("k")).wait(TIMEOUT).acquire();
    let heal = async {
        store.reached(Call::Acquire, 2).await;
        store.heal();
    };
    let (guard, ()) = tokio::join!(acquire, heal);
    let guard = guard.map_err(|error| format!("a transient failure ended the wait: {error}"))?;
    guard.release().await.map_err(|error| error.to_string())
}
