//! Several keys: all or none, and never a deadlock.

use std::time::Duration;

use super::super::context::{
    Context, LONG, TIMEOUT, ensure, granted, is_free_soon, releases, renews, tries,
};
use super::super::{Finding, Rule, Steps, step};
use super::rules;
use crate::backend::{Backend, Claim, SetAttempt};
use crate::error::LockError;
use crate::mode::Mode;

pub(super) fn rules() -> Vec<Rule> {
    let mut all = rules![
        several_keys_are_acquired_all_or_none,
        several_keys_in_any_order_never_deadlock,
        a_set_dropped_at_any_step_frees_its_keys,
    ];
    all.extend(rules![if |able| able.atomic_sets;
        a_set_is_acquired_atomically,
        nothing_is_held_while_a_set_waits,
    ]);
    all.extend(rules![if |able| able.fair; overlapping_fair_sets_are_all_granted]);
    all.extend(rules![if |able| able.shared; a_shared_set_excludes_writers_only]);
    all
}

async fn several_keys_are_acquired_all_or_none(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let (a, b) = (context.key("a"), context.key("b"));
    let held = other.lock(&b).acquire().await.map_err(|error| error.to_string())?;
    let wait = Duration::from_millis(50);
    let refused = registry.lock_all([&a, &b]).wait(wait).acquire().await;
    // On a busy machine the store may not answer in time.
    ensure!(
        refused.as_ref().is_err_and(LockError::is_transient),
        "a set with a held key: {refused:?}"
    );
    is_free_soon(&context, &a).await?;
    held.release().await.map_err(|error| error.to_string())?;
    let all = registry.lock_all([&b, &a, &b]).acquire().await.map_err(|e| e.to_string())?;
    let keys: Vec<_> = all.holds().iter().map(|guard| guard.key().clone()).collect();
    ensure!(
        keys == [a.clone(), b.clone()],
        "a set of two keys, one of them repeated, holds {keys:?}"
    );
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
        let run = registry.lock_all(keys).wait(TIMEOUT * 2).run(tokio::task::yield_now());
        tasks.push(tokio::spawn(run));
    }
    for task in tasks {
        task.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    }
    Ok(())
}

async fn try_set(backend: &dyn Backend, claims: &[Claim]) -> Result<SetAttempt, String> {
    backend.try_acquire_set(claims).await.map_err(|error| error.to_string())
}

async fn a_set_is_acquired_atomically(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let set = ["a", "b", "c"].map(|name| Claim::new(context.key(name), LONG));
    let [rival_a, rival_b, _] = set.clone().map(|claim| Claim::new(claim.key, LONG));
    granted(&other, &rival_b).await?;
    match try_set(&one, &set).await? {
        SetAttempt::Busy { at: 1, .. } => {}
        attempt => return Err(format!("a set whose second key is held: {attempt:?}")),
    }
    ensure!(tries(&other, &rival_a).await?, "a refused set keeps its first key");
    releases(&other, &rival_a).await?;
    ensure!(releases(&other, &rival_b).await?, "the holder's release found nothing held");

    let SetAttempt::Granted { tokens, .. } = try_set(&one, &set).await? else {
        return Err("a set of free keys was refused".to_owned());
    };
    let again = match try_set(&one, &set).await? {
        SetAttempt::Granted { tokens, .. } => tokens,
        attempt @ SetAttempt::Busy { .. } => {
            return Err(format!(
                "a repeated set was refused because of its own leases: {attempt:?}"
            ));
        }
    };
    ensure!(tokens.len() == 3 && tokens == again, "a set has the tokens {tokens:?} and {again:?}");
    for claim in &set {
        let rival = Claim::new(claim.key.clone(), LONG);
        ensure!(!tries(&other, &rival).await?, "`{}` of a held set was granted", claim.key);
        ensure!(renews(&one, claim).await?, "`{}` of a held set was not renewed", claim.key);
        ensure!(
            releases(&one, claim).await?,
            "`{}` of a held set could not be released",
            claim.key
        );
        let (larger, _) = granted(&other, &rival).await?;
        ensure!(tokens.iter().all(|token| *token != larger), "the token {larger} was issued twice");
        releases(&other, &rival).await?;
    }
    Ok(())
}

async fn nothing_is_held_while_a_set_waits(context: Context) -> Finding {
    let (holder, other) = (context.registry().await?, context.registry().await?);
    let (waiter, store) = context.intercepted().await?;
    let (a, b) = (context.key("a"), context.key("b"));
    let guard = holder.lock(&b).acquire().await.map_err(|error| error.to_string())?;
    let waiting = tokio::spawn(waiter.lock_all([&a, &b]).wait(TIMEOUT).acquire());
    store.waits_in_queue().await;
    let free = other.lock(&a).wait(TIMEOUT).acquire().await.map_err(|error| error.to_string())?;
    guard.release().await.map_err(|error| error.to_string())?;
    free.release().await.map_err(|error| error.to_string())?;
    let set = waiting.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    set.release().await.map_err(|error| error.to_string())?;
    is_free_soon(&context, &a).await?;
    is_free_soon(&context, &b).await
}

async fn a_set_dropped_at_any_step_frees_its_keys(context: Context) -> Finding {
    let registry = context.registry().await?;
    let (a, b) = (context.key("a"), context.key("b"));
    for polls in 1..24 {
        let linger = Duration::from_millis(if polls % 2 == 0 { 10 } else { 0 });
        let acquiring = registry.lock_all([&a, &b]).ttl(LONG).acquire();
        let steps = step(polls, linger, acquiring).await;
        if let Steps::Completed(set) = steps {
            drop(set);
        }
        for key in [&a, &b] {
            is_free_soon(&context, key)
                .await
                .map_err(|e| format!("dropped at step {polls}: {e}"))?;
        }
    }
    Ok(())
}

async fn overlapping_fair_sets_are_all_granted(context: Context) -> Finding {
    let registries = [context.registry().await?, context.registry().await?];
    let [a, b, c] = ["a", "b", "c"].map(|name| context.key(name));
    let sets = [vec![&a, &b], vec![&c, &b], vec![&c, &a], vec![&b], vec![&a, &b, &c]];
    let mut tasks = Vec::new();
    for round in 0..10 {
        let keys = sets[round % sets.len()].clone();
        let lock = registries[round % 2].lock_all(keys).fair(true).wait(TIMEOUT * 2);
        tasks.push(tokio::spawn(lock.run(tokio::task::yield_now())));
    }
    for task in tasks {
        task.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    }
    for key in [&a, &b, &c] {
        is_free_soon(&context, key).await?;
    }
    Ok(())
}

async fn a_shared_set_excludes_writers_only(context: Context) -> Finding {
    let (one, other) = (context.registry().await?, context.registry().await?);
    let keys = [context.key("a"), context.key("b")];
    let reads = |registry: &crate::Registry| registry.lock_all(&keys).mode(Mode::Shared);
    let first = reads(&one).acquire().await.map_err(|error| error.to_string())?;
    let second = reads(&other).acquire().await.map_err(|error| error.to_string())?;
    for key in &keys {
        let writer = other.lock(key).wait(Duration::from_millis(20)).acquire().await;
        ensure!(
            writer.as_ref().is_err_and(LockError::is_busy),
            "a writer beside two readers: {writer:?}"
        );
    }
    first.release().await.map_err(|error| error.to_string())?;
    second.release().await.map_err(|error| error.to_string())?;
    for key in &keys {
        is_free_soon(&context, key).await?;
    }
    Ok(())
}
