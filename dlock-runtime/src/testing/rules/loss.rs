//! A lost lease is noticed, and the body is treated according to `on_lost`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::super::context::{Context, TIMEOUT, ensure, force, is_free_soon, short};
use super::super::{Call, Finding, Rule};
use super::rules;
use crate::error::LockError;
use crate::options::OnLost;

/// Long enough to be renewed in time on a busy machine.
async fn ttl(context: &Context) -> Result<Duration, String> {
    Ok(short(&context.backend().await?, Duration::from_millis(900)))
}

pub(super) fn rules() -> Vec<Rule> {
    rules![
        a_body_is_stopped_when_its_lease_is_lost,
        a_body_may_finish_after_a_loss,
        a_body_may_keep_its_result_after_a_loss,
        a_release_reports_a_lost_lease,
        no_body_runs_beyond_its_validity,
        a_failed_release_does_not_fail_a_finished_body,
    ]
}

async fn a_body_is_stopped_when_its_lease_is_lost(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let key = context.key("k");
    let body = async {
        force(&other, &key).await?;
        std::future::pending::<Finding>().await
    };
    let run = registry.lock(&key).ttl(ttl(&context).await?).run(body);
    let ended = tokio::time::timeout(TIMEOUT, run).await;
    match ended {
        Ok(Err(LockError::Lost { completed: false, .. })) => Ok(()),
        Ok(other) => Err(format!("a body that lost its lease ended with {other:?}")),
        Err(_) => Err("a body that lost its lease was never stopped".to_owned()),
    }
}

async fn after_loss(
    context: &Context,
    policy: OnLost,
) -> Result<Result<Finding, LockError>, String> {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let key = context.key("k");
    let inner = registry.clone();
    let ttl = ttl(context).await?;
    let lock = registry.lock(&key).ttl(ttl).on_lost(policy);
    Ok(lock
        .run(async {
            force(&other, &key).await?;
            // Another registry, because a second hold is possible only after the loss.
            let second = other.lock(&key).wait(TIMEOUT).acquire().await;
            second
                .map_err(|error| error.to_string())?
                .release()
                .await
                .map_err(|e| e.to_string())?;
            tokio::time::sleep(ttl).await;
            drop(inner);
            Ok(())
        })
        .await)
}

async fn a_body_may_finish_after_a_loss(context: Context) -> Finding {
    match after_loss(&context, OnLost::Finish).await? {
        Err(LockError::Lost { completed: true, .. }) => Ok(()),
        other => Err(format!("a body that finished after a loss ended with {other:?}")),
    }
}

async fn a_body_may_keep_its_result_after_a_loss(context: Context) -> Finding {
    match after_loss(&context, OnLost::Keep).await? {
        Ok(result) => result,
        Err(error) => Err(format!("a body that keeps its result ended with {error:?}")),
    }
}

async fn a_release_reports_a_lost_lease(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let key = context.key("k");
    let guard = registry.lock(&key).acquire().await.map_err(|error| error.to_string())?;
    force(&other, &key).await?;
    let released = guard.release().await;
    ensure!(
        matches!(released, Err(LockError::Lost { completed: true, .. })),
        "a release that found nothing held returned {released:?}"
    );
    is_free_soon(&context, &key).await
}

/// The holder cannot renew. The body of the next holder must start after the last poll of the first.
///
/// The system may stop a thread between the check of the lease and the poll behind it, which no check can prevent. So
/// one late poll is no finding. The next one is: the check before it came after the other body began.
async fn no_body_runs_beyond_its_validity(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let other = context.registry().await?;
    let key = context.key("k");
    let inside = Arc::new(AtomicBool::new(false));
    let late_polls = Arc::new(AtomicUsize::new(0));
    store.fail(Call::Renew);
    let ttl = ttl(&context).await?;
    let first = {
        let (inside, late_polls) = (Arc::clone(&inside), Arc::clone(&late_polls));
        registry.lock(&key).ttl(ttl).run(async move {
            loop {
                if inside.load(Ordering::SeqCst) {
                    late_polls.fetch_add(1, Ordering::SeqCst);
                }
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let first: tokio::task::JoinHandle<Result<(), LockError>> = tokio::spawn(first);
    store.reached(Call::Acquire, 1).await;
    let began = Instant::now();
    while other.lock(&key).inspect().await.map_err(|error| error.to_string())?.is_none() {
        ensure!(began.elapsed() < TIMEOUT, "the first call never acquired the key");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = other.lock(&key).wait(TIMEOUT).run(async {
        inside.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    });
    second.await.map_err(|error| error.to_string())?;
    let first = first.await.map_err(|error| error.to_string())?;
    ensure!(
        matches!(first, Err(LockError::Lost { completed: false, .. })),
        "a hold that could not be renewed ended with {first:?}"
    );
    let late_polls = late_polls.load(Ordering::SeqCst);
    ensure!(late_polls < 2, "two bodies ran at once: the first was polled {late_polls} times");
    Ok(())
}

async fn a_failed_release_does_not_fail_a_finished_body(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let key = context.key("k");
    store.fail(Call::Release);
    let done = registry.lock(&key).run(std::future::ready(7)).await;
    ensure!(matches!(done, Ok(7)), "a finished body ended with {done:?}");
    store.reached(Call::Release, 2).await;
    store.heal();
    is_free_soon(&context, &key).await
}
