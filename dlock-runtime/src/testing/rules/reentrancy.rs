//! Nested calls enter under the outer hold; siblings wait, and spawned tasks inherit nothing.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::context::{Context, TIMEOUT, ensure, is_free_soon};
use super::super::{Call, Finding, Rule};
use super::rules;
use crate::error::{HeldBy, LockError};

pub(super) fn rules() -> Vec<Rule> {
    rules![
        a_nested_call_sends_no_request,
        siblings_under_one_hold_exclude_each_other,
        a_spawned_task_inherits_nothing,
        a_nested_call_without_reentrancy_fails_at_once,
        a_nested_body_ends_with_its_outer_hold,
    ]
}

async fn a_nested_call_sends_no_request(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let key = context.key("k");
    let nested = registry.lock(&key).run(async {
        let inner = registry.lock(&key).wait(Duration::ZERO).run(async {
            registry.lock(&key).wait(Duration::ZERO).run(std::future::ready(1)).await
        });
        inner.await
    });
    let answer = nested.await.map_err(|error| error.to_string())?;
    ensure!(matches!(answer, Ok(Ok(1))), "a nested call returned {answer:?}");
    let (acquires, releases) = (store.count(Call::Acquire), store.count(Call::Release));
    ensure!(acquires == 1 && releases == 1, "{acquires} acquires, {releases} releases");
    is_free_soon(&context, &key).await
}

async fn siblings_under_one_hold_exclude_each_other(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    let inside = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    let sibling = || {
        registry.lock(&key).wait(TIMEOUT).run(async {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            inside.fetch_sub(1, Ordering::SeqCst);
        })
    };
    let body = async { tokio::join!(sibling(), sibling(), sibling()) };
    let (one, two, three) =
        registry.lock(&key).run(body).await.map_err(|error| error.to_string())?;
    one.and(two).and(three).map_err(|error| error.to_string())?;
    let most = most.load(Ordering::SeqCst);
    ensure!(most == 1, "{most} siblings ran at once");
    Ok(())
}

async fn a_spawned_task_inherits_nothing(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    let body = async {
        let lock = registry.lock(&key).wait(Duration::from_millis(50));
        tokio::spawn(lock.run(std::future::ready(()))).await
    };
    let answer = registry.lock(&key).run(body).await.map_err(|error| error.to_string())?;
    let answer = answer.map_err(|error| error.to_string())?;
    ensure!(
        matches!(answer, Err(LockError::Busy { holder: HeldBy::ThisProcess, .. })),
        "a spawned task got {answer:?}"
    );
    Ok(())
}

async fn a_nested_call_without_reentrancy_fails_at_once(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    let body = async {
        let lock = registry.lock(&key).reentrant(false).wait(crate::Wait::Forever);
        tokio::time::timeout(TIMEOUT, lock.run(std::future::ready(()))).await
    };
    let answer = registry.lock(&key).run(body).await.map_err(|error| error.to_string())?;
    ensure!(
        matches!(answer, Ok(Err(LockError::Busy { holder: HeldBy::ThisTask, .. }))),
        "a nested call without reentrancy returned {answer:?}"
    );
    Ok(())
}

/// The future of the nested call is kept outside the outer body, and polled after that body has ended.
async fn a_nested_body_ends_with_its_outer_hold(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let key = context.key("k");
    let is_inside = AtomicBool::new(false);
    let overlapped = AtomicBool::new(false);
    let (enter, entered) = oneshot::channel();
    let mut inner = pin!(registry.lock(&key).run(async {
        let _ = enter.send(());
        loop {
            if is_inside.load(Ordering::SeqCst) {
                overlapped.store(true, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }));
    let outer = registry.lock(&key).run(async {
        tokio::select! {
            ended = &mut inner => Err(format!("a nested body that never returns ended with {ended:?}")),
            _ = entered => Ok(()),
        }
    });
    outer.await.map_err(|error| format!("the outer call: {error}"))??;
    let next = async {
        let next = other.lock(&key).wait(TIMEOUT).run(async {
            is_inside.store(true, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            is_inside.store(false, Ordering::SeqCst);
        });
        next.await.map_err(|error| format!("after the outer call: {error}"))
    };
    let inner = tokio::time::timeout(TIMEOUT, inner);
    let (ended, next): (Result<Result<(), LockError>, _>, _) = tokio::join!(inner, next);
    next?;
    ensure!(
        !overlapped.load(Ordering::SeqCst),
        "a nested body ran at the same time as the next holder"
    );
    match ended {
        Ok(Err(LockError::Lost { completed: false, .. })) => {}
        Ok(ended) => {
            return Err(format!("a nested body ended with {ended:?} after its outer hold"));
        }
        Err(_) => return Err("a nested body outlived its outer hold".to_owned()),
    }
    is_free_soon(&context, &key).await
}
