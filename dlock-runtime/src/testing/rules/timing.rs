//! Leases expire, and the validity never exceeds the lease.

use std::time::Duration;

use tokio::time::Instant;

use super::super::context::{
    Context, LONG, TIMEOUT, ensure, granted, is_free_soon, kill, releases, renews, short, tries,
};
use super::super::{Call, Finding, Rule};
use super::rules;
use crate::backend::{Attempt, Backend, Claim, Release};
use crate::error::LockError;

pub(super) fn rules() -> Vec<Rule> {
    rules![
        a_dead_holders_key_is_free_after_its_ttl,
        validity_ends_before_the_lease,
        renewal_keeps_the_lease,
        an_unrenewed_hold_ends_within_its_ttl,
        a_leaked_unrenewed_hold_expires,
        a_hold_is_renewed_while_its_body_runs,
        max_hold_stops_the_body_and_frees_the_key,
        min_hold_keeps_the_key_and_then_frees_it,
    ]
}

async fn a_dead_holders_key_is_free_after_its_ttl(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let ttl = short(&one, Duration::from_millis(300));
    let dead = Claim::new(context.key("k"), ttl);
    granted(&one, &dead).await?;
    let left = kill(one);
    let held = Instant::now();
    let next = Claim::new(dead.key.clone(), LONG);
    while !tries(&other, &next).await? {
        ensure!(held.elapsed() < ttl + TIMEOUT, "not free {:?} after its ttl", held.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    if let Some(left) = left {
        ensure!(!renews(&left, &dead).await?, "an expired lease was renewed after the next grant");
    }
    releases(&other, &next).await?;
    Ok(())
}

async fn validity_ends_before_the_lease(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    if one.capabilities().session {
        // Its lease ends with its session, and a rule can end a session only by closing it.
        return Ok(());
    }
    for round in 0..3 {
        let ttl = short(&one, Duration::from_millis(200));
        let holder = Claim::new(context.key(&round.to_string()), ttl);
        let sent = Instant::now();
        let (_, validity) = granted(&one, &holder).await?;
        while other.inspect(&holder.key).await.map_err(|error| error.to_string())?.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let free = sent.elapsed();
        ensure!(free >= validity, "free after {free:?}, within a validity of {validity:?}");
    }
    Ok(())
}

async fn renewal_keeps_the_lease(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let ttl = short(&one, Duration::from_secs(1));
    let holder = Claim::new(context.key("k"), ttl);
    let rival = Claim::new(holder.key.clone(), LONG);
    granted(&one, &holder).await?;
    let began = Instant::now();
    while began.elapsed() < ttl * 2 {
        // On a busy machine a renewal may be too late. Then this rule checks nothing.
        if !renews(&one, &holder).await? {
            return Ok(());
        }
        let renewed = Instant::now();
        if tries(&other, &rival).await? {
            ensure!(renewed.elapsed() > ttl / 2, "a renewed lease was granted to another owner");
            return Ok(());
        }
        tokio::time::sleep(ttl / 10).await;
    }
    releases(&one, &holder).await?;
    Ok(())
}

async fn an_unrenewed_hold_ends_within_its_ttl(context: Context) -> Finding {
    let registry = context.registry().await?;
    let ttl = short(&context.backend().await?, Duration::from_millis(300));
    let began = Instant::now();
    let lock = registry.lock(context.key("k")).ttl(ttl).renew(false);
    let ended = lock.run(std::future::pending::<()>()).await;
    ensure!(
        matches!(ended, Err(LockError::Lost { completed: false, .. })),
        "a body that outlived its unrenewed lease ended with {ended:?}"
    );
    ensure!(
        began.elapsed() < ttl + TIMEOUT,
        "the body was stopped only after {:?}",
        began.elapsed()
    );
    Ok(())
}

/// The guard is leaked, so nothing ever releases it.
async fn a_leaked_unrenewed_hold_expires(context: Context) -> Finding {
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let ttl = short(&context.backend().await?, Duration::from_millis(300));
    let key = context.key("k");
    let lock = registry.lock(&key).ttl(ttl).renew(false);
    std::mem::forget(lock.acquire().await.map_err(|error| error.to_string())?);
    let next = other.lock(&key).wait(ttl + TIMEOUT).acquire().await;
    let next = next.map_err(|error| format!("a leaked hold never expired: {error}"))?;
    next.release().await.map_err(|error| error.to_string())
}

async fn a_hold_is_renewed_while_its_body_runs(context: Context) -> Finding {
    let (registry, store) = context.intercepted().await?;
    let key = context.key("k");
    let other = context.backend().await?;
    let ttl = short(&other, Duration::from_secs(3));
    let watched = async {
        store.reached(Call::Renew, 4).await;
        tries(&other, &Claim::new(key.clone(), LONG)).await
    };
    let ended =
        registry.lock(&key).ttl(ttl).run(watched).await.map_err(|error| error.to_string())?;
    ensure!(!ended?, "the key was granted to another while its body ran");
    Ok(())
}

async fn max_hold_stops_the_body_and_frees_the_key(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    let lock = registry.lock(&key).max_hold(Duration::from_millis(100));
    let ended = lock.run(std::future::pending::<()>()).await;
    ensure!(
        matches!(ended, Err(LockError::HeldTooLong { .. })),
        "a body that exceeded its max_hold ended with {ended:?}"
    );
    is_free_soon(&context, &key).await
}

async fn min_hold_keeps_the_key_and_then_frees_it(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    if !one.capabilities().min_hold {
        return Ok(());
    }
    let rest = Duration::from_millis(400);
    let holder = Claim::new(context.key("k"), LONG);
    granted(&one, &holder).await?;
    let sent = Instant::now();
    let keep = Release { keep_for: Some(rest), late_acquire: false };
    one.release(&holder, keep).await.map_err(|error| error.to_string())?;
    ensure!(!renews(&one, &holder).await?, "a released lease was renewed during its min_hold");
    let next = Claim::new(holder.key.clone(), LONG);
    loop {
        let answer = other.try_acquire(&next).await.map_err(|error| error.to_string())?;
        if matches!(answer, Attempt::Granted { .. }) {
            break;
        }
        ensure!(
            sent.elapsed() < rest + TIMEOUT,
            "not free {:?} after its min_hold",
            sent.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    ensure!(sent.elapsed() >= rest, "free after {:?} of a min_hold of {rest:?}", sent.elapsed());
    releases(&other, &next).await?;

    // Through the engine, with a dropped guard.
    let registry = context.registry().await?;
    let key = context.key("engine");
    let began = Instant::now();
    let guard = registry.lock(&key).min_hold(rest).acquire().await.map_err(|e| e.to_string())?;
    drop(guard);
    let second = registry.lock(&key).wait(TIMEOUT).acquire().await.map_err(|e| e.to_string())?;
    ensure!(began.elapsed() >= rest, "free after {:?} of a min_hold of {rest:?}", began.elapsed());
    second.release().await.map_err(|error| error.to_string())
}
