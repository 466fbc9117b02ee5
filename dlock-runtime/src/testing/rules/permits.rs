//! Permits: a limited number of holders.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::super::context::{
    Context, LONG, SOON, TIMEOUT, ensure, granted, is_free_soon, kill, releases, renews, short,
    tries, work,
};
use super::super::{Finding, Rule, Steps, step};
use super::rules;
use crate::backend::{Attempt, Backend, Claim, Mode};
use crate::error::LockError;
use crate::key::LockKey;

pub(super) fn rules() -> Vec<Rule> {
    rules![
        if |able| able.permits;
        no_more_holders_than_permits_are_granted,
        each_permit_has_its_own_token,
        a_dead_holders_permit_is_free_after_its_ttl,
        permits_and_other_modes_exclude_each_other,
        each_acquire_applies_its_own_number_of_permits,
        no_more_bodies_than_permits_run,
        a_permit_holder_cannot_upgrade_to_exclusive,
        a_permit_dropped_at_any_step_is_released,
    ]
}

fn three() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(2)
}

fn one_of_three(key: &LockKey) -> Claim {
    Claim::new(key.clone(), LONG).with_mode(Mode::Permits(three()))
}

async fn no_more_holders_than_permits_are_granted(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let claims: Vec<_> = (0..4).map(|_| one_of_three(&key)).collect();
    granted(&one, &claims[0]).await?;
    granted(&other, &claims[1]).await?;
    granted(&one, &claims[2]).await?;
    ensure!(!tries(&other, &claims[3]).await?, "a fourth of three permits was granted");
    ensure!(
        renews(&other, &claims[1]).await?,
        "a permit could not be renewed while others were held"
    );
    ensure!(releases(&one, &claims[0]).await?, "a permit's release found nothing held");
    ensure!(!releases(&one, &claims[0]).await?, "a permit was released twice");
    granted(&other, &claims[3]).await?;
    ensure!(!tries(&one, &claims[0]).await?, "a fourth of three permits was granted");
    for (backend, claim) in [(&other, 1), (&one, 2), (&other, 3)] {
        ensure!(releases(backend, &claims[claim]).await?, "permit {claim} was lost");
    }
    is_free_soon(&context, &key).await
}

async fn each_permit_has_its_own_token(context: Context) -> Finding {
    let backend = context.backend().await?;
    let key = context.key("k");
    let mut last = None;
    for _ in 0..3 {
        let claims: Vec<_> = (0..3).map(|_| one_of_three(&key)).collect();
        for claim in &claims {
            let (token, _) = granted(&backend, claim).await?;
            ensure!(last < Some(token), "a permit has token {token} after {last:?}");
            let (again, _) = granted(&backend, claim).await?;
            ensure!(again == token, "the same claim had token {token} and then {again}");
            last = Some(token);
        }
        for claim in &claims {
            releases(&backend, claim).await?;
        }
    }
    Ok(())
}

async fn a_dead_holders_permit_is_free_after_its_ttl(context: Context) -> Finding {
    let (dead, alive) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let ttl = short(&dead, Duration::from_millis(400));
    let mut dying = one_of_three(&key);
    dying.ttl = ttl;
    let living = [one_of_three(&key), one_of_three(&key)];
    granted(&dead, &dying).await?;
    for claim in &living {
        granted(&alive, claim).await?;
    }
    let began = Instant::now();
    let _rest = kill(dead);
    let registry = context.registry().await?;
    let next = registry.lock(&key).permits(three()).wait(ttl * 2 + TIMEOUT).acquire().await;
    let next = next.map_err(|error| error.to_string())?;
    let took = began.elapsed();
    ensure!(
        took < ttl * 2 + SOON,
        "a dead holder's permit with a ttl of {ttl:?} was free only after {took:?}"
    );
    for claim in &living {
        ensure!(releases(&alive, claim).await?, "a living holder's permit was lost");
    }
    next.release().await.map_err(|error| error.to_string())
}

async fn permits_and_other_modes_exclude_each_other(context: Context) -> Finding {
    let backend = context.backend().await?;
    let key = context.key("k");
    let (permit, alone) = (one_of_three(&key), Claim::new(key.clone(), LONG));
    granted(&backend, &permit).await?;
    ensure!(
        !tries(&backend, &alone).await?,
        "an exclusive lock was granted while a permit is held"
    );
    if backend.capabilities().shared {
        let reader = Claim::new(key.clone(), LONG).with_mode(Mode::Shared);
        ensure!(!tries(&backend, &reader).await?, "a reader was granted while a permit is held");
    }
    releases(&backend, &permit).await?;
    granted(&backend, &alone).await?;
    ensure!(
        !tries(&backend, &permit).await?,
        "a permit was granted while an exclusive lock is held"
    );
    releases(&backend, &alone).await?;
    Ok(())
}

/// The situation of a deployment that changes the number while old processes still run.
async fn each_acquire_applies_its_own_number_of_permits(context: Context) -> Finding {
    let backend = context.backend().await?;
    let key = context.key("k");
    let of = |number: u32| {
        let permits = NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Claim::new(key.clone(), LONG).with_mode(Mode::Permits(permits))
    };
    let (first, second, third, fourth) = (of(2), of(2), of(2), of(4));
    let alike = other_permits(&backend, &first).await?;
    ensure!(alike.is_none(), "the first holder got another number of permits: {alike:?}");
    let alike = other_permits(&backend, &second).await?;
    ensure!(alike.is_none(), "a second holder of two permits got another number: {alike:?}");
    ensure!(!tries(&backend, &third).await?, "a third of two permits was granted");
    let other = other_permits(&backend, &fourth).await?;
    ensure!(other == NonZeroU32::new(2), "a holder of four permits beside two got {other:?}");
    releases(&backend, &first).await?;
    ensure!(
        !tries(&backend, &third).await?,
        "a third of two permits was granted beside a holder of four"
    );
    releases(&backend, &second).await?;
    granted(&backend, &third).await?;
    for claim in [&third, &fourth] {
        ensure!(releases(&backend, claim).await?, "a permit was lost");
    }
    Ok(())
}

/// Acquires once, and returns the other number of permits that the store reports.
async fn other_permits(backend: &dyn Backend, claim: &Claim) -> Result<Option<NonZeroU32>, String> {
    match backend.try_acquire(claim).await.map_err(|error| error.to_string())? {
        Attempt::Granted { other_permits, .. } => Ok(other_permits),
        Attempt::Busy { .. } => Err(format!("`{}` was refused", claim.key)),
    }
}

async fn no_more_bodies_than_permits_run(context: Context) -> Finding {
    let registries = [context.registry().await?, context.registry().await?];
    let key = context.key("k");
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // No body returns before two have run at once, so a slow store cannot make them run one by one.
    let met = Arc::new(watch::Sender::new(false));
    let tasks: Vec<_> = (0..12)
        .map(|number| {
            let lock = registries[number % 2].lock(&key).permits(three()).wait(TIMEOUT * 3);
            let (inside, most, met) = (Arc::clone(&inside), Arc::clone(&most), Arc::clone(&met));
            tokio::spawn(async move {
                for _ in 0..4 {
                    let body = async {
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        if now >= 2 {
                            met.send_replace(true);
                        }
                        let mut meeting = met.subscribe();
                        if timeout(TIMEOUT, meeting.wait_for(|met| *met)).await.is_err() {
                            met.send_replace(true);
                        }
                        work().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                    };
                    lock.clone().run(body).await.map_err(|error| error.to_string())?;
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    for task in join_all(tasks).await {
        task.map_err(|error| error.to_string())??;
    }
    let most = most.load(Ordering::SeqCst);
    ensure!(most <= 3, "{most} bodies ran at once with three permits");
    ensure!(most >= 2, "only one body at a time ran with three permits");
    is_free_soon(&context, &key).await
}

async fn a_permit_holder_cannot_upgrade_to_exclusive(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    let permit = || registry.lock(&key).permits(three());
    let inner = async {
        let again = permit().run(std::future::ready(())).await;
        let alone = registry.lock(&key).run(std::future::ready(())).await;
        (again, alone)
    };
    let (again, alone) = permit().run(inner).await.map_err(|error| error.to_string())?;
    ensure!(again.is_ok(), "a nested permit of the same key: {again:?}");
    ensure!(matches!(alone, Err(LockError::Upgrade { .. })), "a nested exclusive call: {alone:?}");
    is_free_soon(&context, &key).await
}

async fn a_permit_dropped_at_any_step_is_released(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    for polls in 1..200 {
        let lock = registry.lock(&key).permits(three()).wait(TIMEOUT);
        let steps =
            step(polls, Duration::from_millis(10), lock.run(tokio::task::yield_now())).await;
        let free = is_free_soon(&context, &key).await;
        free.map_err(|error| format!("dropped at step {polls}: {error}"))?;
        if let Steps::Completed(result) = steps {
            return result.map_err(|error| error.to_string());
        }
    }
    Err("not complete after 200 polls".to_owned())
}
