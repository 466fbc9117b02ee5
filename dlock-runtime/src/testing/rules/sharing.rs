//! Readers share, writers exclude, and neither starves the other.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::super::context::{
    Context, LONG, SOON, TIMEOUT, ensure, granted, in_three_tries, is_free_soon, kill, releases,
    renews, short, tries, work,
};
use super::super::{Finding, Rule, Steps, step};
use super::rules;
use crate::backend::{Backend, Claim, Mode, Release};
use crate::error::LockError;
use crate::key::LockKey;
use crate::lock::Lock;
use crate::options::Wait;
use crate::token::FencingToken;

pub(super) fn rules() -> Vec<Rule> {
    rules![
        if |able| able.shared;
        readers_share_and_exclude_a_writer,
        tokens_of_readers_and_writers_grow,
        readers_are_renewed_and_released_independently,
        a_dead_reader_frees_the_key_within_its_ttl,
        later_readers_do_not_overtake_a_waiting_writer,
        a_writer_that_timed_out_lets_readers_in,
        a_writer_that_died_lets_readers_in,
        a_forced_release_ends_every_reader,
        a_reader_cannot_upgrade_to_a_writer,
        a_nested_reader_cannot_upgrade_to_a_writer,
        a_writer_can_nest_readers,
        readers_of_one_process_share,
        a_reader_keeps_the_key_for_its_min_hold,
        a_reader_dropped_at_any_step_frees_its_key,
        a_waiting_writer_dropped_at_any_step_lets_readers_in,
    ]
}

pub(super) fn under_load() -> Vec<Rule> {
    rules![if |able| able.shared; looping_readers_do_not_starve_a_writer]
}

fn reader(key: &LockKey) -> Claim {
    Claim::new(key.clone(), LONG).with_mode(Mode::Shared)
}

fn writer(key: &LockKey) -> Claim {
    Claim::new(key.clone(), LONG)
}

async fn readers_share_and_exclude_a_writer(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let (first, second, third) = (reader(&key), reader(&key), reader(&key));
    let alone = writer(&key);
    granted(&one, &first).await?;
    granted(&other, &second).await?;
    ensure!(!tries(&one, &alone).await?, "a writer was granted a key that readers hold");
    ensure!(releases(&one, &first).await?, "a reader's release found nothing held");
    ensure!(!tries(&other, &alone).await?, "a writer was granted a key that a reader holds");
    granted(&one, &third).await?;
    ensure!(releases(&other, &second).await?, "a reader's release found nothing held");
    ensure!(releases(&one, &third).await?, "a reader's release found nothing held");
    granted(&other, &alone).await?;
    ensure!(!tries(&one, &reader(&key)).await?, "a reader was granted a key that a writer holds");
    ensure!(releases(&other, &alone).await?, "a writer's release found nothing held");
    granted(&one, &first).await?;
    ensure!(releases(&one, &first).await?, "a reader's release found nothing held");
    Ok(())
}

async fn tokens_of_readers_and_writers_grow(context: Context) -> Finding {
    let backend = context.backend().await?;
    let key = context.key("k");
    let mut last = None;
    for round in 0..5 {
        let alone = writer(&key);
        let (token, _) = granted(&backend, &alone).await?;
        ensure!(last < Some(token), "the writer of round {round} has token {token} after {last:?}");
        releases(&backend, &alone).await?;
        let readers = [reader(&key), reader(&key)];
        for claim in &readers {
            let (later, _) = granted(&backend, claim).await?;
            ensure!(later > token, "a reader has token {later} after a writer with {token}");
            last = last.max(Some(later));
        }
        for claim in &readers {
            releases(&backend, claim).await?;
        }
    }
    Ok(())
}

async fn readers_are_renewed_and_released_independently(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let (first, second) = (reader(&key), reader(&key));
    granted(&one, &first).await?;
    let (token, _) = granted(&other, &second).await?;
    ensure!(renews(&one, &first).await?, "a reader could not be renewed beside another one");
    ensure!(releases(&one, &first).await?, "a reader's release found nothing held");
    ensure!(!renews(&one, &first).await?, "a reader was renewed after its release");
    ensure!(!releases(&one, &first).await?, "a reader was released twice");
    ensure!(renews(&other, &second).await?, "the release of one reader ended another one's lease");
    let (again, _) = granted(&other, &second).await?;
    ensure!(again == token, "the same claim had token {token} and then {again}");
    ensure!(releases(&other, &second).await?, "a reader's release found nothing held");
    is_free_soon(&context, &key).await
}

async fn a_dead_reader_frees_the_key_within_its_ttl(context: Context) -> Finding {
    let (dead, alive) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let ttl = short(&dead, Duration::from_millis(400));
    let mut dying = reader(&key);
    dying.ttl = ttl;
    let living = reader(&key);
    granted(&dead, &dying).await?;
    granted(&alive, &living).await?;
    let began = Instant::now();
    let _rest = kill(dead);
    let registry = context.registry().await?;
    ensure!(releases(&alive, &living).await?, "the lease of the living reader was lost");
    let guard = registry.lock(&key).wait(ttl * 2 + TIMEOUT).acquire().await;
    let guard = guard.map_err(|error| error.to_string())?;
    let took = began.elapsed();
    ensure!(
        took < ttl * 2 + SOON,
        "free only {took:?} after the death of a reader with a ttl of {ttl:?}"
    );
    guard.release().await.map_err(|error| error.to_string())
}

async fn later_readers_do_not_overtake_a_waiting_writer(context: Context) -> Finding {
    in_three_tries(&context, |key| a_waiting_writer_goes_first(&context, key)).await
}

async fn a_waiting_writer_goes_first(context: &Context, key: LockKey) -> Finding {
    let (readers, (writers, store)) = (context.registry().await?, context.intercepted().await?);
    let shared = || readers.lock(&key).mode(Mode::Shared);
    let held = shared().acquire().await.map_err(|error| error.to_string())?;
    let written = tokio::spawn(acquire_and_release(writers.lock(&key).wait(TIMEOUT)));
    store.waits_in_queue().await;
    let later = shared().wait(Duration::ZERO).acquire().await;
    ensure!(
        later.as_ref().is_err_and(LockError::is_busy),
        "a reader behind a waiting writer: {later:?}"
    );
    let mut read = tokio::spawn(acquire_and_release(shared().wait(TIMEOUT)));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut read).await;
    ensure!(early.is_err(), "a reader overtook a waiting writer: {early:?}");
    held.release().await.map_err(|error| error.to_string())?;
    let written = written.await.map_err(|error| error.to_string())??;
    let read = read.await.map_err(|error| error.to_string())??;
    ensure!(read > written, "the reader was granted before the writer");
    Ok(())
}

/// Acquires and releases at once, and returns the token.
async fn acquire_and_release(lock: Lock) -> Result<FencingToken, String> {
    let guard = lock.acquire().await.map_err(|error| error.to_string())?;
    let token = guard.fencing_token();
    guard.release().await.map_err(|error| error.to_string())?;
    Ok(token)
}

/// The readers overlap, so the key would never be free on its own.
async fn looping_readers_do_not_starve_a_writer(context: Context) -> Finding {
    const READERS: usize = 32;
    let registries = [context.registry().await?, context.registry().await?];
    let (writers, store) = context.intercepted().await?;
    let key = context.key("k");
    let stop = tokio_util::sync::CancellationToken::new();
    let readers: Vec<_> = (0..READERS)
        .map(|number| {
            let lock = registries[number % 2].lock(&key).mode(Mode::Shared).wait(TIMEOUT * 2);
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut rounds = 0;
                while !stop.is_cancelled() {
                    lock.clone().run(work()).await.map_err(|error| error.to_string())?;
                    rounds += 1;
                }
                Ok::<usize, String>(rounds)
            })
        })
        .collect();
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        let asked = Instant::now();
        let written = writers.lock(&key).wait(TIMEOUT).run(work()).await;
        written.map_err(|error| format!("a writer among {READERS} readers: {error}"))?;
        longest = longest.max(asked.elapsed());
    }
    stop.cancel();
    let mut rounds = 0;
    for reader in readers {
        rounds += reader.await.map_err(|error| error.to_string())??;
    }
    tracing::info!(?longest, rounds, tries = store.count(super::super::Call::Acquire), elapsed = ?began.elapsed(), "a writer among looping readers");
    ensure!(
        rounds >= READERS,
        "{READERS} readers made only {rounds} rounds, so the writer starved them"
    );
    Ok(())
}

async fn a_writer_that_timed_out_lets_readers_in(context: Context) -> Finding {
    let (readers, writers) = (context.registry().await?, context.registry().await?);
    let key = context.key("k");
    let shared = || readers.lock(&key).mode(Mode::Shared);
    let held = shared().acquire().await.map_err(|error| error.to_string())?;
    let wait = Duration::from_millis(200);
    let answer = writers.lock(&key).wait(wait).acquire().await;
    ensure!(answer.as_ref().is_err_and(LockError::is_busy), "a writer beside a reader: {answer:?}");
    let second = shared().wait(SOON).acquire().await;
    let second = second.map_err(|error| format!("a reader after a writer timed out: {error}"))?;
    for guard in [held, second] {
        guard.release().await.map_err(|error| error.to_string())?;
    }
    is_free_soon(&context, &key).await
}

async fn a_writer_that_died_lets_readers_in(context: Context) -> Finding {
    let (holding, dead) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let held = reader(&key);
    granted(&holding, &held).await?;
    let mut waiting = writer(&key).with_wait_left(LONG);
    waiting.ttl = short(&dead, Duration::from_secs(1));
    let limit = if dead.capabilities().queue { waiting.ttl + TIMEOUT } else { SOON };
    if dead.capabilities().queue {
        let turn = tokio::time::timeout(Duration::from_millis(300), dead.acquire_queued(&waiting));
        ensure!(turn.await.is_err(), "a writer was granted a key that a reader holds");
    } else {
        ensure!(!tries(&dead, &waiting).await?, "a writer was granted a key that a reader holds");
    }
    let _rest = kill(dead);
    let registry = context.registry().await?;
    let second = registry.lock(&key).mode(Mode::Shared).wait(limit).acquire().await;
    let second =
        second.map_err(|error| format!("a reader after a waiting writer died: {error}"))?;
    second.release().await.map_err(|error| error.to_string())?;
    ensure!(releases(&holding, &held).await?, "the lease of the reader was lost");
    Ok(())
}

async fn a_forced_release_ends_every_reader(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let (first, second) = (reader(&key), reader(&key));
    granted(&one, &first).await?;
    granted(&other, &second).await?;
    let ended = one.force_release(&key).await.map_err(|error| error.to_string())?;
    ensure!(ended, "a forced release found nothing held");
    ensure!(!renews(&one, &first).await?, "a reader was renewed after a forced release");
    ensure!(!renews(&other, &second).await?, "a reader was renewed after a forced release");
    let ended = one.force_release(&key).await.map_err(|error| error.to_string())?;
    ensure!(!ended, "a second forced release found a holder");
    is_free_soon(&context, &key).await
}

/// It could run beside another reader nested in the same writer, and would write while that one reads.
async fn a_nested_reader_cannot_upgrade_to_a_writer(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    let write = || registry.lock(&key).wait(Wait::Forever).run(std::future::ready(()));
    let reads_and_writes = registry.lock(&key).mode(Mode::Shared).run(write());
    let answer = registry.lock(&key).run(reads_and_writes).await;
    let answer = answer.and_then(|read| read).map_err(|error| error.to_string())?;
    ensure!(
        matches!(answer, Err(LockError::Upgrade { .. })),
        "a writer inside a reader: {answer:?}"
    );
    is_free_soon(&context, &key).await
}

async fn a_reader_cannot_upgrade_to_a_writer(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    let inner = registry.lock(&key).wait(Wait::Forever).run(std::future::ready(()));
    let outer = registry.lock(&key).mode(Mode::Shared).run(inner).await;
    let answer = outer.map_err(|error| error.to_string())?;
    ensure!(
        matches!(answer, Err(LockError::Upgrade { .. })),
        "a writer inside a reader: {answer:?}"
    );
    is_free_soon(&context, &key).await
}

async fn a_writer_can_nest_readers(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    let read = || registry.lock(&key).mode(Mode::Shared).run(work());
    let both = async { tokio::join!(read(), read()) };
    let (one, other) = registry.lock(&key).run(both).await.map_err(|error| error.to_string())?;
    ensure!(one.is_ok() && other.is_ok(), "readers inside a writer: {one:?}, {other:?}");
    is_free_soon(&context, &key).await
}

async fn readers_of_one_process_share(context: Context) -> Finding {
    const READERS: usize = 5;
    let registry = context.registry().await?;
    let key = context.key("k");
    let all_here = tokio::sync::Barrier::new(READERS);
    let readers = (0..READERS).map(|_| {
        let lock = registry.lock(&key).mode(Mode::Shared).wait(TIMEOUT);
        async {
            let met = lock.run(tokio::time::timeout(TIMEOUT, all_here.wait())).await;
            met.map_err(|error| error.to_string())?.map_err(|_| "readers did not meet".to_owned())
        }
    });
    join_all(readers).await.into_iter().try_for_each(|met| met.map(|_| ()))?;
    is_free_soon(&context, &key).await
}

async fn a_reader_keeps_the_key_for_its_min_hold(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    if !one.capabilities().min_hold {
        return Ok(());
    }
    let key = context.key("k");
    let held = reader(&key);
    granted(&one, &held).await?;
    let rest = Duration::from_millis(500);
    let began = Instant::now();
    let release = Release { keep_for: Some(rest), late_acquire: false };
    one.release(&held, release).await.map_err(|error| error.to_string())?;
    ensure!(
        !releases(&one, &held).await?,
        "a released reader was released again during its min_hold"
    );
    if tries(&other, &writer(&key)).await? {
        let took = began.elapsed();
        ensure!(took >= rest, "a writer was granted after {took:?} of a min_hold of {rest:?}");
        return Ok(());
    }
    let second = reader(&key);
    granted(&other, &second)
        .await
        .map_err(|error| format!("a reader during another reader's min_hold: {error}"))?;
    releases(&other, &second).await?;
    Ok(())
}

async fn a_reader_dropped_at_any_step_frees_its_key(context: Context) -> Finding {
    let registry = context.registry().await?;
    let key = context.key("k");
    for polls in 1..200 {
        let lock = registry.lock(&key).mode(Mode::Shared).wait(TIMEOUT);
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

/// A queue position that stays behind would keep readers out.
async fn a_waiting_writer_dropped_at_any_step_lets_readers_in(context: Context) -> Finding {
    let (readers, writers) = (context.registry().await?, context.registry().await?);
    let key = context.key("k");
    let shared = || readers.lock(&key).mode(Mode::Shared);
    let held = shared().acquire().await.map_err(|error| error.to_string())?;
    for polls in 1..12 {
        let wait = writers.lock(&key).wait(TIMEOUT).acquire();
        let dropped = step(polls, Duration::from_millis(10), wait);
        if let Ok(Steps::Completed(done)) = tokio::time::timeout(SOON / 2, dropped).await {
            return Err(format!("a writer beside a reader: {done:?}"));
        }
        let second = shared().wait(SOON).acquire().await;
        let second = second.map_err(|error| format!("dropped at step {polls}: {error}"))?;
        second.release().await.map_err(|error| error.to_string())?;
    }
    held.release().await.map_err(|error| error.to_string())?;
    is_free_soon(&context, &key).await
}
