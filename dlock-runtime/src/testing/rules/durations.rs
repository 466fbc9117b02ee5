//! Huge durations: timeouts never expire, and leases are refused before any request is sent.

use std::time::Duration;

use super::super::context::{Context, TIMEOUT, ensure, is_free_soon};
use super::super::{Call, Finding, Intercepted, Rule};
use super::rules;
use crate::backend::Backend;
use crate::error::LockError;

pub(super) fn rules() -> Vec<Rule> {
    rules![
        huge_timeouts_never_expire,
        huge_leases_are_refused_before_any_request,
        a_huge_extension_is_refused_before_any_request,
    ]
}

const HUGE: [Duration; 2] = [Duration::MAX, Duration::from_secs(u64::MAX / 2)];

fn sent(store: &Intercepted) -> [usize; 3] {
    [Call::Acquire, Call::Renew, Call::Release].map(|call| store.count(call))
}

async fn huge_timeouts_never_expire(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let fair = context.backend().await?.capabilities().fair;
    for (number, huge) in HUGE.into_iter().enumerate() {
        for fair in [false, true].into_iter().filter(|wanted| fair || !wanted) {
            let key = context.key(&format!("{number}:{fair}"));
            let held = other.lock(&key).acquire().await.map_err(|error| error.to_string())?;
            let lock = registry.lock(&key).fair(fair).wait(huge).max_hold(huge);
            let waiting = tokio::spawn(lock.run(tokio::task::yield_now()));
            tokio::time::sleep(Duration::from_millis(50)).await;
            held.release().await.map_err(|error| error.to_string())?;
            let ran = tokio::time::timeout(TIMEOUT, waiting).await;
            let ran = ran.map_err(|_| format!("a wait of {huge:?} did not acquire the lock"))?;
            let ran = ran.map_err(|error| error.to_string())?;
            ran.map_err(|error| format!("a wait and a max_hold of {huge:?}: {error}"))?;
            let set = [context.key("a"), key];
            let set = registry.lock_all(&set).wait(huge).max_hold(huge).acquire().await;
            let set = set.map_err(|error| format!("a set with a wait of {huge:?}: {error}"))?;
            set.release().await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

async fn huge_leases_are_refused_before_any_request(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let (key, beside) = (context.key("k"), context.key("beside"));
    for huge in HUGE {
        let lock = || registry.lock(&key);
        let ttl = lock().ttl(huge).acquire().await.map(drop);
        let run = lock().ttl(huge).run(std::future::ready(())).await;
        let min_hold = lock().min_hold(huge).acquire().await.map(drop);
        let set = registry.lock_all([&key, &beside]).ttl(huge).acquire().await.map(drop);
        for (option, answer) in [("ttl", ttl), ("ttl", run), ("min_hold", min_hold), ("ttl", set)] {
            ensure!(
                matches!(answer, Err(LockError::Unsupported { .. })),
                "{option} = {huge:?} returned {answer:?}"
            );
        }
    }
    ensure!(sent(&store) == [0; 3], "a refused lease was sent to the store: {:?}", sent(&store));
    is_free_soon(&context, &key).await
}

async fn a_huge_extension_is_refused_before_any_request(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let key = context.key("k");
    let lock = registry.lock(&key).max_hold(TIMEOUT * 4);
    let guard = lock.acquire().await.map_err(|error| error.to_string())?;
    let before = store.count(Call::Renew);
    for huge in HUGE {
        let extended = guard.extend(huge).await;
        ensure!(
            extended.as_ref().is_err_and(|error| !error.is_lost() && !error.is_transient()),
            "an extension by {huge:?} returned {extended:?}"
        );
        ensure!(guard.is_held(), "a refused extension ended the hold");
    }
    // On a session backend, the engine may have renewed in the meantime, to prove the session.
    let session = store.capabilities().session;
    ensure!(
        session || store.count(Call::Renew) == before,
        "a refused extension was sent to the store"
    );
    guard.release().await.map_err(|error| error.to_string())?;
    is_free_soon(&context, &key).await
}
