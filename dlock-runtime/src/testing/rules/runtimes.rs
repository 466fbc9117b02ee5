//! Guards that move from one tokio runtime to another, even after the first one has shut down.

use std::sync::mpsc::Sender;
use std::time::Duration;

use super::super::context::{
    Context, LONG, TIMEOUT, ensure, in_a_stalled_runtime, in_another_runtime, is_free_soon, short,
};
use super::super::{Call, Finding, Intercepted, Rule};
use super::rules;
use crate::guard::LockGuard;
use crate::key::LockKey;
use crate::registry::Registry;

pub(super) fn rules() -> Vec<Rule> {
    let mut all = rules![
        a_guard_is_released_in_another_runtime,
        a_guard_is_released_after_its_runtime_ended,
        a_guard_is_released_after_its_runtime_ended_during_a_renewal,
        a_guard_is_released_after_its_runtime_ended_during_an_extension,
        a_guard_is_released_while_its_runtime_is_stalled,
        a_guard_is_released_while_its_runtime_shuts_down,
    ];
    all.extend(rules![if |able| !able.session;
        a_guard_dropped_outside_any_runtime_expires,
    ]);
    all
}

async fn acquire(registry: Registry, key: LockKey, ttl: Duration) -> Result<LockGuard, String> {
    registry.lock(&key).ttl(ttl).acquire().await.map_err(|error| error.to_string())
}

/// Checks that the release is answered. The hold may have been lost with its runtime.
async fn is_released(guard: LockGuard) -> Finding {
    match tokio::time::timeout(TIMEOUT, guard.release()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.is_lost() => Ok(()),
        Ok(Err(error)) => Err(format!("a release in another runtime failed: {error}")),
        Err(_) => Err(format!("a release in another runtime was not answered within {TIMEOUT:?}")),
    }
}

async fn leaves_nothing_behind(context: &Context, registry: &Registry, key: &LockKey) -> Finding {
    is_free_soon(context, key).await?;
    let done = registry.shutdown(TIMEOUT).await;
    done.map_err(|error| format!("a shutdown after the use of another runtime: {error}"))
}

async fn a_guard_is_released_in_another_runtime(context: Context) -> Finding {
    for drops in [false, true] {
        let registry = context.registry().await?;
        let key = context.key(if drops { "dropped" } else { "released" });
        let (send, guard) = tokio::sync::oneshot::channel();
        let (over, is_over) = tokio::sync::oneshot::channel::<()>();
        let (inner, its_key) = (registry.clone(), key.clone());
        let there = tokio::spawn(in_another_runtime(async move {
            let _ = send.send(acquire(inner, its_key, LONG).await);
            let _ = is_over.await;
        }));
        let guard = guard.await.map_err(|error| error.to_string())??;
        if drops {
            drop(guard);
        } else {
            is_released(guard).await?;
        }
        leaves_nothing_behind(&context, &registry, &key).await?;
        drop(over);
        there.await.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn a_guard_is_released_after_its_runtime_ended(context: Context) -> Finding {
    for drops in [false, true] {
        let registry = context.registry().await?;
        let key = context.key(if drops { "dropped" } else { "released" });
        let acquiring = acquire(registry.clone(), key.clone(), LONG);
        let guard = in_another_runtime(acquiring).await??;
        if drops {
            drop(guard);
        } else {
            is_released(guard).await?;
        }
        leaves_nothing_behind(&context, &registry, &key).await?;
    }
    Ok(())
}

async fn a_guard_is_released_after_its_runtime_ended_during_a_renewal(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let ttl = short(&store, Duration::from_secs(3));
    let key = context.key("k");
    let (acquiring, inner) = (acquire(registry.clone(), key.clone(), ttl), store.clone());
    store.delay(Call::Renew);
    let guard = in_another_runtime(async move {
        let guard = acquiring.await?;
        inner.reached(Call::Renew, 1).await;
        Ok::<_, String>(guard)
    });
    released_after(&context, &registry, &key, &store, guard.await??).await
}

async fn a_guard_is_released_after_its_runtime_ended_during_an_extension(
    context: Context,
) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let key = context.key("k");
    let (acquiring, inner) = (acquire(registry.clone(), key.clone(), LONG), store.clone());
    store.delay(Call::Renew);
    let guard = in_another_runtime(async move {
        let guard = acquiring.await?;
        tokio::select! {
            _ = guard.extend(LONG) => return Err("an extension returned before its renewal was answered".to_owned()),
            () = inner.reached(Call::Renew, 1) => {}
        }
        Ok::<_, String>(guard)
    });
    released_after(&context, &registry, &key, &store, guard.await??).await
}

async fn released_after(
    context: &Context,
    registry: &Registry,
    key: &LockKey,
    store: &Intercepted,
    guard: LockGuard,
) -> Finding {
    store.heal();
    is_released(guard).await?;
    leaves_nothing_behind(context, registry, key).await
}

/// No request can be sent from there, so the key is free when the lease expires, as after a crash. Session backends
/// are excluded, because the key stays held as long as the session of the process.
async fn a_guard_dropped_outside_any_runtime_expires(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let ttl = short(&context.backend().await?, Duration::from_millis(500));
    let key = context.key("k");
    let acquiring = acquire(registry.clone(), key.clone(), ttl);
    let guard = in_another_runtime(acquiring).await??;
    let dropped = std::thread::spawn(move || drop(guard));
    ensure!(dropped.join().is_ok(), "dropping a guard outside any runtime panicked");
    let next = other.lock(&key).wait(ttl + TIMEOUT).acquire().await;
    let next =
        next.map_err(|error| format!("after a guard was dropped outside any runtime: {error}"))?;
    next.release().await.map_err(|error| error.to_string())?;
    leaves_nothing_behind(&context, &registry, &key).await
}

/// Returns a guard whose renewal is in flight in a runtime that is stalled. Dropping the sender shuts that runtime
/// down.
async fn renewing_in_a_stalled_runtime(
    context: &Context,
) -> Result<(Registry, LockKey, LockGuard, Sender<()>), String> {
    let (registry, store) = context.intercepted().await?;
    let ttl = short(&store, Duration::from_secs(15));
    let key = context.key("k");
    store.delay(Call::Renew);
    let (acquiring, inner) = (acquire(registry.clone(), key.clone(), ttl), store.clone());
    let (guard, over) = in_a_stalled_runtime(async move {
        let guard = acquiring.await?;
        // The store has finished the renewal; only its answer is pending.
        inner.answered(Call::Renew, 1).await;
        Ok::<_, String>(guard)
    })
    .await?;
    store.heal();
    Ok((registry, key, guard?, over))
}

async fn a_guard_is_released_while_its_runtime_is_stalled(context: Context) -> Finding {
    let (registry, key, guard, over) = renewing_in_a_stalled_runtime(&context).await?;
    is_released(guard).await?;
    leaves_nothing_behind(&context, &registry, &key).await?;
    drop(over);
    Ok(())
}

async fn a_guard_is_released_while_its_runtime_shuts_down(context: Context) -> Finding {
    let (registry, key, guard, over) = renewing_in_a_stalled_runtime(&context).await?;
    let release = tokio::spawn(is_released(guard));
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(over);
    release.await.map_err(|error| error.to_string())??;
    leaves_nothing_behind(&context, &registry, &key).await
}
