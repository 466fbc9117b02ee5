//! Late messages change nothing: an acquire executed after its release, a grant received after its validity, a
//! renewal answered after the hold has expired.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::context::{Context, LONG, TIMEOUT, ensure, is_free_soon, releases, short, tries};
use super::super::{Call, Finding, Rule};
use super::rules;
use crate::backend::{Attempt, Backend, Claim, Release, SetAttempt};
use crate::error::LockError;
use crate::key::LockKey;

pub(super) fn rules() -> Vec<Rule> {
    let mut all = rules![
        an_acquire_executed_after_its_release_grants_nothing,
        a_late_queued_acquire_grants_nothing,
        no_body_runs_on_a_grant_received_after_its_validity,
        a_late_renewal_does_not_revive_an_expired_hold,
    ];
    all.extend(rules![if |able| able.atomic_sets; a_late_set_grants_nothing]);
    all
}

/// Sends the release of an abandoned acquire before the acquire itself, as if it had overtaken it.
async fn abandon(backend: &dyn Backend, claim: &Claim) -> Finding {
    let release = Release { keep_for: None, late_acquire: true };
    backend.release(claim, release).await.map(|_| ()).map_err(|error| error.to_string())
}

/// Checks that the key is free: two other claims are granted in turn.
async fn is_free_for_others(backend: &dyn Backend, key: &LockKey) -> Finding {
    for _ in 0..2 {
        let next = Claim::new(key.clone(), LONG);
        ensure!(tries(backend, &next).await?, "a late acquire keeps others out");
        ensure!(releases(backend, &next).await?, "the holder's release found nothing held");
    }
    Ok(())
}

async fn an_acquire_executed_after_its_release_grants_nothing(context: Context) -> Finding {
    let backend = context.backend().await?;
    let claim = Claim::new(context.key("k"), LONG);
    abandon(&backend, &claim).await?;
    for _ in 0..2 {
        ensure!(!tries(&backend, &claim).await?, "a late abandoned acquire was granted");
    }
    is_free_for_others(&backend, &claim.key).await?;
    // The same after somebody else has held the key in between.
    ensure!(
        !tries(&backend, &claim).await?,
        "an abandoned acquire was granted after another holder"
    );
    is_free_for_others(&backend, &claim.key).await
}

async fn a_late_queued_acquire_grants_nothing(context: Context) -> Finding {
    let backend = context.backend().await?;
    if !backend.capabilities().queue {
        return Ok(());
    }
    let claim = Claim::new(context.key("k"), LONG).with_wait_left(LONG);
    abandon(&backend, &claim).await?;
    // It may stay in the queue as long as its caller waits, so it is dropped.
    let late = tokio::time::timeout(Duration::from_secs(1), backend.acquire_queued(&claim)).await;
    ensure!(
        !matches!(late, Ok(Ok(Attempt::Granted { .. }))),
        "a late abandoned acquire was granted through the queue"
    );
    abandon(&backend, &claim).await?;
    is_free_soon(&context, &claim.key).await
}

async fn a_late_set_grants_nothing(context: Context) -> Finding {
    let backend = context.backend().await?;
    let claims = ["a", "b"].map(|name| Claim::new(context.key(name), LONG));
    for claim in &claims {
        abandon(&backend, claim).await?;
    }
    let late = backend.try_acquire_set(&claims).await.map_err(|error| error.to_string())?;
    ensure!(matches!(late, SetAttempt::Busy { .. }), "a late set was granted: {late:?}");
    for claim in &claims {
        is_free_for_others(&backend, &claim.key).await?;
    }
    Ok(())
}

async fn no_body_runs_on_a_grant_received_after_its_validity(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let ttl = short(&store, Duration::from_millis(300));
    let key = context.key("k");
    // With time left the call retries, without any it fails.
    for wait in [ttl + TIMEOUT, Duration::from_millis(50)] {
        store.delay(Call::Acquire);
        let asked = store.count(Call::Acquire);
        let asked_when_run = Arc::new(AtomicUsize::new(0));
        let run = {
            let (store, asked_when_run) = (store.clone(), Arc::clone(&asked_when_run));
            registry.lock(&key).ttl(ttl).wait(wait).run(async move {
                asked_when_run.store(store.count(Call::Acquire) - asked, Ordering::SeqCst);
            })
        };
        let late = async {
            store.reached(Call::Acquire, asked + 1).await;
            tokio::time::sleep(ttl + Duration::from_millis(100)).await;
            store.heal();
        };
        let (ran, ()) = tokio::join!(run, late);
        let asked_when_run = asked_when_run.load(Ordering::SeqCst);
        match (ran, asked_when_run) {
            (_, 1) => return Err("a body ran on a grant whose validity had ended".to_owned()),
            (Ok(()), 2..) | (Err(LockError::Backend { .. }), 0) => {}
            (ran, _) => {
                return Err(format!("a call whose grant arrived too late ended with {ran:?}"));
            }
        }
        is_free_soon(&context, &key).await?;
    }
    Ok(())
}

/// The loss is observed first, then the answer to the renewal arrives.
async fn a_late_renewal_does_not_revive_an_expired_hold(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let ttl = short(&store, Duration::from_millis(900));
    let key = context.key("k");
    store.delay(Call::Renew);
    let guard = registry.lock(&key).ttl(ttl).acquire().await.map_err(|error| error.to_string())?;
    let lost = tokio::time::timeout(ttl + TIMEOUT, guard.lost()).await;
    ensure!(lost.is_ok(), "an unrenewed hold never expired");
    ensure!(store.count(Call::Renew) > 0, "a hold was never renewed");
    store.heal();
    tokio::time::sleep(Duration::from_millis(200)).await;
    ensure!(!guard.is_held(), "a late renewal revived an expired hold");
    ensure!(guard.remaining().is_zero(), "an expired hold has {:?} remaining", guard.remaining());
    let released = guard.release().await;
    ensure!(
        released.as_ref().is_err_and(LockError::is_lost),
        "the release of an expired hold returned {released:?}"
    );
    is_free_soon(&context, &key).await
}
