//! Renewals that are not answered: a release does not wait for them, and a single one does not lose the lease.

use std::time::Duration;

use tokio::time::Instant;

use super::super::context::{
    Context, TIMEOUT, ensure, in_another_runtime, in_three_tries, is_free_soon, on_time, short,
};
use super::super::{Call, Finding, Intercepted, Rule};
use super::rules;
use crate::error::LockError;
use crate::key::LockKey;
use crate::registry::Registry;

/// The longest time a caller waits for its release before it continues in the background.
const RELEASE: Duration = Duration::from_secs(1);

pub(super) fn rules() -> Vec<Rule> {
    rules![
        a_release_does_not_wait_for_a_hung_renewal,
        one_lost_renewal_does_not_lose_the_lease,
        a_late_renewal_on_a_blocked_thread_revives_nothing,
    ]
}

async fn a_release_does_not_wait_for_a_hung_renewal(context: Context) -> Finding {
    // So long that waiting for the renewal would take much longer than a release may.
    let ttl = short(&context.backend().await?, Duration::from_secs(15));
    let each = ["body", "guard"].map(|kind| {
        let context = context.clone();
        async move {
            let (registry, store) = context.intercepted().await?;
            let key = context.key(kind);
            store.delay(Call::Renew);
            let lock = registry.lock(&key).ttl(ttl);
            let ended = if kind == "body" {
                let body = async {
                    store.reached(Call::Renew, 1).await;
                    Instant::now()
                };
                lock.run(body).await
            } else {
                let guard = lock.acquire().await.map_err(|error| error.to_string())?;
                store.reached(Call::Renew, 1).await;
                let began = Instant::now();
                guard.release().await.map(|()| began)
            };
            let ended =
                ended.map_err(|error| format!("a release beside a hung renewal: {error}"))?;
            ensure!(
                ended.elapsed() < on_time(RELEASE),
                "a release took {:?} beside a hung renewal",
                ended.elapsed()
            );
            store.heal();
            is_free_soon(&context, &key).await
        }
    });
    let [body, guard] = each;
    let (body, guard) = tokio::join!(body, guard);
    body.and(guard)
}

async fn one_lost_renewal_does_not_lose_the_lease(context: Context) -> Finding {
    in_three_tries(&context, |key| {
        let context = context.clone();
        async move {
            let (registry, store) = context.intercepted().await?;
            let ttl = short(&store, Duration::from_millis(1_500));
            store.lose(Call::Renew, 1);
            let run = registry.lock(&key).ttl(ttl).run(async {
                store.reached(Call::Renew, 1).await;
                tokio::time::sleep(ttl + ttl / 2).await;
            });
            run.await.map_err(|error| format!("one unanswered renewal: {error}"))?;
            ensure!(store.count(Call::Renew) >= 2, "a lost renewal was not retried");
            is_free_soon(&context, &key).await
        }
    })
    .await
}

/// The thread is blocked while the validity ends. When it resumes, the answer to a renewal has arrived.
async fn a_late_renewal_on_a_blocked_thread_revives_nothing(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let ttl = short(&store, Duration::from_millis(900));
    let key = context.key("k");
    store.delay(Call::Renew);
    let stalled = stalled_hold(registry, store, key.clone(), ttl);
    in_another_runtime(stalled).await??;
    is_free_soon(&context, &key).await
}

async fn stalled_hold(
    registry: Registry,
    store: Intercepted,
    key: LockKey,
    ttl: Duration,
) -> Finding {
    let guard = registry.lock(&key).ttl(ttl).acquire().await.map_err(|error| error.to_string())?;
    let renewed = tokio::time::timeout(ttl + TIMEOUT, store.reached(Call::Renew, 1)).await;
    ensure!(renewed.is_ok(), "a hold was never renewed");
    let left = guard.remaining();
    ensure!(left <= ttl, "a lease of {ttl:?} is valid for {left:?}");
    std::thread::sleep(left + Duration::from_millis(100));
    store.heal();
    tokio::time::sleep(Duration::from_millis(100)).await;
    ensure!(!guard.is_held(), "a late renewal revived an expired hold");
    let released = guard.release().await;
    ensure!(
        released.as_ref().is_err_and(LockError::is_lost),
        "the release of an expired hold returned {released:?}"
    );
    Ok(())
}
