//! One holder at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;

use super::super::context::{Context, LONG, TIMEOUT, ensure, granted, releases, tries};
use super::super::{Finding, Rule};
use super::rules;
use crate::backend::Claim;
use crate::key::LockKey;
use crate::registry::Registry;

pub(super) fn rules() -> Vec<Rule> {
    rules![
        a_held_key_is_busy_for_everyone_else,
        one_of_many_simultaneous_acquires_succeeds,
        no_update_is_lost_between_processes,
        different_keys_do_not_collide,
    ]
}

async fn a_held_key_is_busy_for_everyone_else(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let (first, second) = (Claim::new(key.clone(), LONG), Claim::new(key, LONG));
    granted(&one, &first).await?;
    ensure!(!tries(&other, &second).await?, "a second process was granted a held key");
    ensure!(
        !tries(&one, &second).await?,
        "a second owner in the same process was granted a held key"
    );
    ensure!(releases(&one, &first).await?, "the holder's release found nothing held");
    granted(&other, &second).await?;
    releases(&other, &second).await?;
    Ok(())
}

async fn one_of_many_simultaneous_acquires_succeeds(context: Context) -> Finding {
    let backends = [context.backend().await?, context.backend().await?];
    for round in 0..20 {
        let key = context.key(&round.to_string());
        let claims: Vec<_> = (0..8).map(|_| Claim::new(key.clone(), LONG)).collect();
        let mut all = Vec::new();
        for (claim, backend) in claims.iter().zip(backends.iter().cycle()) {
            all.push(tries(backend, claim));
        }
        let wins = join_all(all).await;
        let wins = wins.into_iter().collect::<Result<Vec<_>, _>>()?;
        let winners = wins.iter().filter(|&&won| won).count();
        ensure!(winners == 1, "{winners} of 8 simultaneous acquires were granted in round {round}");
        for (claim, backend) in claims.iter().zip(backends.iter().cycle()) {
            releases(backend, claim).await?;
        }
    }
    Ok(())
}

/// A counter that loses updates without a lock, because other tasks run between the read and the write.
#[derive(Default)]
struct Counter(Mutex<u64>);

impl Counter {
    async fn increment(&self) {
        let read = *self.0.lock().expect("not poisoned");
        tokio::task::yield_now().await;
        *self.0.lock().expect("not poisoned") = read + 1;
    }
}

async fn no_update_is_lost_between_processes(context: Context) -> Finding {
    const PROCESSES: u64 = 3;
    const TASKS: u64 = 4;
    const ROUNDS: u64 = 5;

    let key = context.key("counter");
    let mut registries = Vec::new();
    for _ in 0..PROCESSES {
        registries.push(context.registry().await?);
    }
    let unlocked = Arc::new(Counter::default());
    let locked = Arc::new(Counter::default());
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for registry in &registries {
        for _ in 0..TASKS {
            let (registry, key) = (registry.clone(), key.clone());
            let (unlocked, locked, done) = (unlocked.clone(), locked.clone(), done.clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    increment_locked(&registry, &key, &locked).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), String>(())
            }));
            let unlocked_task = async move {
                for _ in 0..ROUNDS {
                    unlocked.increment().await;
                }
                Ok(())
            };
            tasks.push(tokio::spawn(unlocked_task));
        }
    }
    for task in tasks {
        task.await.map_err(|error| error.to_string())??;
    }
    let all = PROCESSES * TASKS * ROUNDS;
    let (locked, unlocked) =
        (*locked.0.lock().expect("not poisoned"), *unlocked.0.lock().expect("not poisoned"));
    ensure!(locked == all, "{} of {all} updates were lost under the lock", all - locked);
    ensure!(
        unlocked < all,
        "the control without the lock lost no update, so the rule proves nothing"
    );
    Ok(())
}

async fn increment_locked(registry: &Registry, key: &LockKey, counter: &Counter) -> Finding {
    let section = registry.lock(key).wait(TIMEOUT * 2).run(counter.increment());
    section.await.map_err(|error| error.to_string())
}

async fn different_keys_do_not_collide(context: Context) -> Finding {
    let backend = context.backend().await?;
    let base = context.key("");
    let longest = "x".repeat(crate::key::MAX_KEY_BYTES - base.as_str().len());
    let suffixes = [
        "a", "A", "a ", " a", "a%20", "a:b", "a%3Ab", "a/b", "{a}", "%7Ba%7D", "a{b", "a}b", "'a'",
        "\"a\"", "a\\", "a\n", "a\u{0}", "ä", "a\u{308}", "*", "?", "[a]", "a_", "a%", &longest,
    ];
    let claims: Vec<_> = suffixes
        .iter()
        .map(|suffix| Claim::new(LockKey::from(format!("{base}{suffix}")), LONG))
        .collect();
    for claim in &claims {
        granted(&backend, claim)
            .await
            .map_err(|_| format!("`{:?}` collides with another key", claim.key))?;
    }
    for claim in &claims {
        let rival = Claim::new(claim.key.clone(), LONG);
        ensure!(!tries(&backend, &rival).await?, "`{:?}` was granted twice", claim.key);
        ensure!(releases(&backend, claim).await?, "`{:?}` was not held", claim.key);
    }
    Ok(())
}
