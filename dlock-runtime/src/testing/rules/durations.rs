//! Durations beyond all measure are bounds that never come, or are refused before anything is sent.

use std::time::Duration;

use super::super::context::{Context, PATIENCE, ensure, is_free_soon};
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

const ABSURD: [Duration; 2] = [Duration::MAX, Duration::from_secs(u64::MAX / 2)];

fn sent(store: &Intercepted) -> [usize; 3] {
    [Call::Acquire, Call::Renew, Call::Release].map(|call| store.count(call))
}

async fn huge_timeouts_never_expire(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let fair = context.backend().await?.capabilities().fair;
    for (number, absurd) in ABSURD.into_iter().enumerate() {
        for fair in [false, true].into_iter().filter(|wanted| fair || !wanted) {
            let key = context.key(&format!("{number}:{fair}"));
            let held = other.lock(&key).acquire().await.map_err(|error| error.to_string())?;
            let lock = registry.lock(&key).fair(fair).wait(absurd).max_hold(absurd);
            let waiting = tokio::spawn(lock.run(tokio::task::yield_now()));
            tokio::time::sleep(Duration::from_millis(50)).await;
            held.release().await.map_err(|error| error.to_string())?;
            let ran = tokio::time::timeout(PATIENCE, waiting).await;
            let ran = ran.map_err(|_| format!("a wait of {absurd:?} got no lock"))?;
            let ran = ran.map_err(|error| error.to_string())?;
            ran.map_err(|error| format!("a wait and a max_hold of {absurd:?}: {error}"))?;
            let set = [context.key("a"), key];
            let set = registry.lock_all(&set).wait(absurd).max_hold(absurd).acquire().await;
            let set = set.map_err(|error| format!("a set with a wait of {absurd:?}: {error}"))?;
            set.release().await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

async fn huge_leases_are_refused_before_any_request(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let (key, beside) = (context.key("k"), context.key("beside"));
    for absurd in ABSURD {
        let lock = || registry.lock(&key);
        let ttl = lock().ttl(absurd).acquire().await.map(drop);
        let run = lock().ttl(absurd).run(std::future::ready(())).await;
        let min_hold = lock().min_hold(absurd).acquire().await.map(drop);
        let set = registry.lock_all([&key, &beside]).ttl(absurd).acquire().await.map(drop);
        for (option, answer) in [("ttl", ttl), ("ttl", run), ("min_hold", min_hold), ("ttl", set)] {
            ensure!(
                matches!(answer, Err(LockError::Unsupported { .. })),
                "{option} = {absurd:?} was answered with {answer:?}"
            );
        }
    }
    ensure!(sent(&store) == [0; 3], "what was refused had been sent: {:?}", sent(&store));
    is_free_soon(&context, &key).await
}

async fn a_huge_extension_is_refused_before_any_request(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let key = context.key("k");
    let lock = registry.lock(&key).max_hold(PATIENCE * 4);
    let guard = lock.acquire().await.map_err(|error| error.to_string())?;
    let before = store.count(Call::Renew);
    for absurd in ABSURD {
        let extended = guard.extend(absurd).await;
        ensure!(
            extended.as_ref().is_err_and(|error| !error.is_lost() && !error.is_transient()),
            "an extension by {absurd:?} was answered with {extended:?}"
        );
        ensure!(guard.is_held(), "an extension that was refused ended the hold");
    }
    // A backend whose sessions are proved all the time may have renewed by itself meanwhile.
    let session = store.capabilities().session;
    ensure!(session || store.count(Call::Renew) == before, "what was refused had been sent");
    guard.release().await.map_err(|error| error.to_string())?;
    is_free_soon(&context, &key).await
}
