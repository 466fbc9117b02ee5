//! Only the owner renews and releases, and a released lease stays released.

use super::super::context::{
    Context, LONG, TIMEOUT, ensure, granted, is_free_soon, releases, renews, tries,
};
use super::super::{Finding, Rule};
use super::rules;
use crate::backend::{Claim, Release};

pub(super) fn rules() -> Vec<Rule> {
    rules![
        only_the_owner_releases,
        only_the_owner_renews,
        a_renewal_after_release_does_not_revive_the_lease,
        a_repeated_acquire_returns_the_same_grant,
        a_repeated_release_harms_nobody,
        a_forced_release_ends_the_hold,
        a_dropped_guard_frees_its_key_soon,
        a_panicking_body_frees_its_key_and_the_panic_propagates,
        shutdown_waits_for_background_releases,
    ]
}

async fn only_the_owner_releases(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let holder = Claim::new(context.key("k"), LONG);
    let stranger = Claim::new(holder.key.clone(), LONG);
    granted(&one, &holder).await?;
    ensure!(!releases(&other, &stranger).await?, "a stranger's release reported success");
    let late = Release { late_acquire: true, keep_for: None };
    let _ = other.release(&stranger, late).await;
    ensure!(!tries(&other, &stranger).await?, "a stranger's release freed the key");
    ensure!(renews(&one, &holder).await?, "a stranger's release ended the holder's lease");
    releases(&one, &holder).await?;
    Ok(())
}

async fn only_the_owner_renews(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let holder = Claim::new(context.key("k"), LONG);
    let stranger = Claim::new(holder.key.clone(), LONG);
    ensure!(!renews(&one, &holder).await?, "a renewal was granted before any acquire");
    granted(&one, &holder).await?;
    ensure!(!renews(&other, &stranger).await?, "a stranger renewed the lease");
    ensure!(renews(&one, &holder).await?, "the holder could not renew");
    releases(&one, &holder).await?;
    Ok(())
}

async fn a_renewal_after_release_does_not_revive_the_lease(context: Context) -> Finding {
    let backend = context.backend().await?;
    let holder = Claim::new(context.key("k"), LONG);
    granted(&backend, &holder).await?;
    releases(&backend, &holder).await?;
    ensure!(!renews(&backend, &holder).await?, "a released lease was renewed");
    let next = Claim::new(holder.key.clone(), LONG);
    granted(&backend, &next)
        .await
        .map_err(|_| "a renewal after the release acquired the key again")?;
    releases(&backend, &next).await?;
    Ok(())
}

async fn a_repeated_acquire_returns_the_same_grant(context: Context) -> Finding {
    let backend = context.backend().await?;
    let holder = Claim::new(context.key("k"), LONG);
    let (first, _) = granted(&backend, &holder).await?;
    let (second, _) = granted(&backend, &holder)
        .await
        .map_err(|_| "a repeated acquire was refused because of its own lease")?;
    // Of several nodes, the repeated request may hear another majority, with a larger token that nobody else has.
    ensure!(first <= second, "a repeated acquire got an older token, {second} after {first}");
    ensure!(releases(&backend, &holder).await?, "the hold could not be released");
    Ok(())
}

async fn a_repeated_release_harms_nobody(context: Context) -> Finding {
    let backend = context.backend().await?;
    let first = Claim::new(context.key("k"), LONG);
    let second = Claim::new(first.key.clone(), LONG);
    granted(&backend, &first).await?;
    releases(&backend, &first).await?;
    releases(&backend, &first).await?;
    granted(&backend, &second).await?;
    releases(&backend, &first).await?;
    ensure!(renews(&backend, &second).await?, "a repeated release ended the next holder's lease");
    releases(&backend, &second).await?;

    // Through the engine: a release whose answer was lost is not reported as a lost lease.
    let (registry, store) = context.intercepted().await?;
    let guard = registry.lock(context.key("engine")).acquire().await.map_err(|e| e.to_string())?;
    store.delay(super::super::Call::Release);
    let released = guard.release().await;
    ensure!(released.is_ok(), "a release whose answer was lost was reported as {released:?}");
    store.heal();
    let done = registry.shutdown(TIMEOUT).await;
    ensure!(done.is_ok(), "the repeated release never completed: {done:?}");
    is_free_soon(&context, &context.key("engine")).await
}

async fn a_forced_release_ends_the_hold(context: Context) -> Finding {
    let backend = context.backend().await?;
    let holder = Claim::new(context.key("k"), LONG);
    let (token, _) = granted(&backend, &holder).await?;
    let seen = backend.inspect(&holder.key).await.map_err(|error| error.to_string())?;
    let seen = seen.ok_or("inspect shows no holder of a held key")?;
    ensure!(seen.owner == Some(holder.owner), "inspect shows another owner");
    ensure!(seen.token == token, "inspect shows the token {} instead of {token}", seen.token);
    ensure!(seen.expires_in <= LONG, "inspect shows a lease of {:?}", seen.expires_in);
    let forced = backend.force_release(&holder.key).await.map_err(|error| error.to_string())?;
    ensure!(forced, "a forced release of a held key found nothing");
    ensure!(!renews(&backend, &holder).await?, "the holder renewed after a forced release");
    ensure!(!releases(&backend, &holder).await?, "the holder released after a forced release");
    let seen = backend.inspect(&holder.key).await.map_err(|error| error.to_string())?;
    ensure!(seen.is_none(), "inspect shows {seen:?} after a forced release");
    let forced = backend.force_release(&holder.key).await.map_err(|error| error.to_string())?;
    ensure!(!forced, "a forced release of a free key found a holder");
    let next = Claim::new(holder.key.clone(), LONG);
    let (larger, _) = granted(&backend, &next).await?;
    ensure!(
        larger > token,
        "the token did not grow across a forced release: {token}, then {larger}"
    );
    releases(&backend, &next).await?;
    Ok(())
}

async fn a_dropped_guard_frees_its_key_soon(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    drop(registry.lock(&key).acquire().await.map_err(|error| error.to_string())?);
    is_free_soon(&context, &key).await
}

async fn a_panicking_body_frees_its_key_and_the_panic_propagates(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    let lock = registry.lock(&key);
    let body = async {
        tokio::task::yield_now().await;
        // Not `panic!`, because the panic hook would print a message in a passing test.
        std::panic::resume_unwind(Box::new("on purpose"))
    };
    let panicked = tokio::spawn(async move { lock.run::<_>(body).await.map(|(): ()| ()) }).await;
    ensure!(panicked.is_err_and(|error| error.is_panic()), "the panic did not propagate");
    is_free_soon(&context, &key).await
}

async fn shutdown_waits_for_background_releases(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let key = context.key("k");
    let guard = registry.lock(&key).acquire().await.map_err(|error| error.to_string())?;
    drop(guard);
    let done = registry.shutdown(TIMEOUT).await;
    ensure!(done.is_ok(), "{done:?}");
    ensure!(store.count(super::super::Call::Release) >= 1, "shutdown finished before the release");
    let other = context.registry().await?;
    let now = other.lock(&key).wait(std::time::Duration::ZERO).acquire().await;
    let now = now.map_err(|error| format!("not free after shutdown: {error}"))?;
    now.release().await.map_err(|error| error.to_string())?;
    let refused = registry.lock(&key).acquire().await;
    ensure!(
        matches!(refused, Err(crate::LockError::ShutDown { .. })),
        "an acquire after shutdown returned {refused:?}"
    );
    Ok(())
}
