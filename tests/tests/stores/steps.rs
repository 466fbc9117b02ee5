//! Steps that the tests of several stores share.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use dlock_runtime::backend::{Attempt, Backend, Claim, Mode, Release};
use dlock_runtime::{FencingToken, Lock, LockError, LockGuard, Registry, Wait};
use dlock_tests::proxy::Proxy;
use dlock_tests::servers::RedisServer;
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub fn registry(backend: impl Backend) -> Registry {
    Registry::builder().backend("store", backend).build().expect("a registry")
}

pub async fn acquire(registry: &Registry, key: &str) -> LockGuard {
    registry.lock(key).wait(Wait::Forever).acquire().await.expect("the lock")
}

/// The URL of a new `SQLite` file, in a folder that is deleted on drop.
pub fn sqlite_file() -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", folder.path().join("locks.db").display());
    (folder, url)
}

/// Waits until the condition is true, for at most 30 s.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// How many scripts a Redis server has run, by its own statistics.
pub fn scripts_run(server: &RedisServer) -> u64 {
    let info = server.cli(&["INFO", "commandstats"]);
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// Asserts that connecting fails with one line that contains `part`, and never shows the text `secret`.
pub async fn assert_one_line_error(url: &str, part: &str) {
    let error = dlock_runtime::connect(url).await.expect_err(url);
    let shown = format!("{error} {error:?}");
    assert!(error.to_string().contains(part), "{url}: {error}");
    assert!(!shown.contains("secret"), "{shown}");
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
}

/// Hands a lock over between two processes. If a release did not wake the waiter, each hand-over would
/// take until the engine's next poll, half a second or more.
pub async fn hand_over_without_polling(registries: &[Registry; 2]) {
    let began = Instant::now();
    let mut guard = acquire(&registries[0], "k").await;
    let rounds = 20;
    for round in 1..=rounds {
        let next = registries[round % 2].lock("k").wait(Duration::from_secs(20)).acquire();
        let waiter = tokio::spawn(next);
        // Time for the waiter to find the lock held and start waiting.
        sleep(Duration::from_millis(30)).await;
        guard.release().await.expect("held to the end");
        guard = waiter.await.expect("no panic").expect("the lock");
    }
    guard.release().await.expect("held to the end");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(6), "{rounds} hand-overs took {took:?}");
}

/// Acquires the lock, releases it and returns its token.
pub async fn acquire_once(lock: Lock) -> FencingToken {
    let guard = lock.acquire().await.expect("the lock");
    let token = guard.fencing_token();
    guard.release().await.expect("held to the end");
    token
}

/// Releases the lock, waits until every waiter has had it, and asserts that no token repeats or is older.
pub async fn hand_to_all(guard: LockGuard, waiters: Vec<JoinHandle<FencingToken>>) {
    let mut last = guard.fencing_token();
    guard.release().await.expect("held to the end");
    let mut tokens = vec![];
    for waiter in waiters {
        tokens.push(waiter.await.expect("no panic"));
    }
    tokens.sort();
    for token in tokens {
        assert!(token > last, "{token} after {last}");
        last = token;
    }
}

/// Asserts that an acquire with this wait fails soon after its deadline, and not as busy.
pub async fn assert_fails_at_deadline(registry: &Registry, key: &str, wait: Duration) {
    let began = Instant::now();
    let answer = registry.lock(key).wait(wait).acquire().await;
    let took = began.elapsed();
    let error = answer.expect_err("nobody can grant it");
    assert!(error.is_transient() && !error.is_busy(), "{error:?}");
    assert!(took < wait + Duration::from_millis(1_500), "answered after {took:?} of {wait:?}");
}

/// Asserts that an acquire on a hung server waits for its whole wait, and fails soon after.
pub async fn assert_waits_for_hung_server(registry: &Registry) {
    let wait = Duration::from_millis(1_500);
    let began = Instant::now();
    let answer = registry.lock("k").wait(wait).acquire().await;
    let took = began.elapsed();
    let error = answer.expect_err("a hung server grants nothing");
    assert!(error.is_transient() && !error.is_busy(), "{error:?}");
    assert!(took >= wait && took < wait + Duration::from_secs(2), "failed after {took:?}");
}

/// Asserts that a hold of `one` survives a restart, and that `other` is refused until its release.
pub async fn assert_hold_survives(
    one: &Registry,
    other: &Registry,
    ttl: Duration,
    restart: impl FnOnce(),
) {
    let guard = one.lock("k").ttl(ttl).acquire().await.expect("the lock");
    let token = guard.fencing_token();
    restart();
    let rival = other.lock("k").wait(Duration::ZERO).acquire().await;
    assert!(rival.as_ref().is_err_and(LockError::is_busy), "{rival:?}");
    // Past the first ttl, so it was renewed on the restarted server.
    sleep(ttl).await;
    assert!(guard.is_held(), "the hold ended although the data was kept");
    guard.release().await.expect("held to the end");
    let next = acquire(other, "k").await;
    assert!(next.fencing_token() > token, "{} follows {token}", next.fencing_token());
    next.release().await.expect("held");
}

/// Asserts that a release that arrives before its acquire prevents the grant, in every mode.
pub async fn assert_early_release_wins(backend: &impl Backend) {
    let claim = |mode| Claim::new("k".into(), Duration::from_secs(30)).with_mode(mode);
    let abandon = Release { late_acquire: true, keep_for: None };
    let permits = Mode::Permits(NonZeroU32::MAX);
    // The first one finds nothing stored for the key, the others may.
    for (mode, fair) in [
        (Mode::Exclusive, false),
        (Mode::Exclusive, false),
        (Mode::Exclusive, true),
        (Mode::Shared, false),
        (permits, false),
    ] {
        let late = claim(mode).with_fair(fair);
        backend.release(&late, abandon).await.expect("an answer");
        let answer = backend.try_acquire(&late).await.expect("an answer");
        assert!(matches!(answer, Attempt::Busy { .. }), "an abandoned acquire: {answer:?}");
        let another = claim(Mode::Exclusive);
        let free = backend.try_acquire(&another).await.expect("an answer");
        assert!(matches!(free, Attempt::Granted { .. }), "the key is not free: {free:?}");
        let answer = backend.try_acquire(&late).await.expect("an answer");
        assert!(matches!(answer, Attempt::Busy { .. }), "an abandoned acquire: {answer:?}");
        backend.release(&another, Release::default()).await.expect("an answer");
    }
}

/// Asserts that 200 acquires during an outage all fail as store failures, over few new connections.
pub async fn assert_outage_causes_few_connections(registry: &Registry, proxy: &Proxy) {
    let before = proxy.accepted();
    let lock = |number| registry.lock(format!("k{number}")).wait(Duration::from_secs(4)).acquire();
    let answers = join_all((0..200).map(lock)).await;
    let is_failure = |answer: &_| matches!(answer, Err(LockError::Backend { .. }));
    assert!(answers.iter().all(is_failure), "{answers:?}");
    let connections = proxy.accepted() - before;
    assert!((1..=40).contains(&connections), "{connections} connections");
}

/// Starts 3000 acquires while answers are stalled, and asserts that few requests are sent. A renewal is
/// answered after all requests in flight.
pub async fn assert_flood_keeps_few_in_flight(
    proxy: &Proxy,
    at_least: u64,
    requests: impl Fn() -> u64,
    lock: impl Fn(String) -> Lock,
) {
    proxy.stall_answers();
    let before = requests();
    let flood = (0..3_000).map(|number| {
        let lock = lock(format!("k{number}"));
        tokio::spawn(async move { lock.acquire().await?.release().await })
    });
    let flood: Vec<_> = flood.collect();
    // An unanswered request counts as in flight for half a second.
    let sent = || requests() - before;
    until("some are in flight", || sent() >= at_least).await;
    sleep(Duration::from_millis(300)).await;
    let sent = sent();
    assert!(sent < 500, "{sent} requests are in flight");
    proxy.resume();
    for answer in join_all(flood).await {
        answer.expect("no panic").expect("held to the end");
    }
}
