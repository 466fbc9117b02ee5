//! What goes over the wire, and what the server does for it.

use std::collections::BTreeMap;
use std::time::Duration;

use dlock_runtime::backend::{AsyncBackend, Attempt, Claim, Redis};
use dlock_runtime::{LockError, LockKey, Registry};
use dlock_tests::servers::RedisServer;
use futures_util::future::join_all;
use redis::AsyncCommands;

use super::{acquire, plain, registry};

/// How often the server has executed each command, those that scripts call among them.
pub(super) fn executed(server: &RedisServer) -> BTreeMap<String, u64> {
    let info = server.cli(&["INFO", "commandstats"]);
    let calls = info.lines().filter_map(|line| {
        let (name, stats) = line.trim().strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), stats.split(',').next()?.parse().ok()?))
    });
    calls.collect()
}

pub(super) fn reset(server: &RedisServer) {
    let _ = server.cli(&["CONFIG", "RESETSTAT"]);
}

async fn cycle(registry: &Registry, key: &str) {
    acquire(registry, key).await.release().await.expect("held to the end");
}

pub(super) async fn the_server_executes_six_commands_for_an_uncontended_cycle() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    cycle(&registry, "warm").await;
    reset(&server);
    for number in 0..100 {
        cycle(&registry, &format!("k{number}")).await;
    }
    let mut executed = executed(&server);
    executed.retain(|name, _| !name.starts_with("config") && name != "info");
    let expected = [
        ("evalsha", 200),
        ("exists", 200),
        ("incrby", 100),
        ("set", 100),
        ("mget", 100),
        ("del", 100),
    ];
    let expected = expected.map(|(name, calls)| (name.to_owned(), calls));
    assert_eq!(executed, BTreeMap::from(expected));
}

pub(super) async fn callers_that_are_ready_together_share_commands() {
    const CALLERS: usize = 64;
    const CYCLES: usize = 50;
    let server = RedisServer::start();
    let registry = registry(&server).await;
    cycle(&registry, "warm").await;
    reset(&server);
    let callers = (0..CALLERS).map(|caller| {
        let registry = registry.clone();
        tokio::spawn(async move {
            for _ in 0..CYCLES {
                cycle(&registry, &format!("k{caller}")).await;
            }
        })
    });
    join_all(callers.collect::<Vec<_>>())
        .await
        .into_iter()
        .for_each(|caller| caller.expect("no panic"));
    let executed = executed(&server);
    let (calls, requests) = (executed["evalsha"], 2 * (CALLERS * CYCLES) as u64);
    assert!(executed["set"] >= requests / 2, "each lock was granted");
    assert!(calls * 3 <= requests, "{calls} commands for {requests} requests");
    for shared in ["exists", "incrby", "mget", "del"] {
        let shared_by_all = executed[shared];
        assert!(shared_by_all <= calls, "{shared} is executed once for all requests of a call");
    }
}

pub(super) async fn requests_for_one_key_in_one_batch_are_granted_once() {
    const CALLERS: usize = 48;
    let server = RedisServer::start();
    let redis = Redis::connect(&server.url()).await.expect("the server runs");
    for round in 0..50 {
        let key = |caller: usize| LockKey::from(format!("k{round}:{}", caller % 2));
        let claims: Vec<_> =
            (0..CALLERS).map(|caller| Claim::new(key(caller), Duration::from_secs(5))).collect();
        let attempts = join_all(claims.iter().map(|claim| redis.try_acquire(claim))).await;
        let granted = attempts.into_iter().map(|attempt| attempt.expect("an answer"));
        let is_granted = |attempt: &Attempt| matches!(attempt, Attempt::Granted { .. });
        let granted: Vec<_> =
            granted.zip(&claims).filter(|(attempt, _)| is_granted(attempt)).collect();
        assert_eq!(granted.len(), 2, "one grant for each key");
        assert_ne!(granted[0].1.key, granted[1].1.key);
    }
    assert!(executed(&server)["evalsha"] < 50 * CALLERS as u64 / 4, "they went out together");
}

pub(super) async fn a_release_notifies_only_who_is_first_in_line() {
    let server = RedisServer::start();
    let (one, other) = (registry(&server).await, registry(&server).await);
    reset(&server);
    cycle(&one, "k").await;
    assert_eq!(executed(&server).get("publish"), None);
    let guard = acquire(&one, "k").await;
    let waiter = tokio::spawn(async move { acquire(&other, "k").await });
    super::steps::until("somebody waits", || {
        server.cli(&["PUBSUB", "NUMSUB", "dlock:{k}:free"]).contains('1')
            && server.cli(&["EXISTS", "dlock:{k}:line"]).contains('1')
    })
    .await;
    guard.release().await.expect("held to the end");
    waiter.await.expect("no panic").release().await.expect("held to the end");
    assert_eq!(executed(&server).get("publish"), Some(&1), "one release had a waiter");
}

pub(super) async fn a_value_of_another_kind_fails_only_its_own_lock() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    let mut connection = plain(&server).await;
    let () = connection.lpush("dlock:{k7}", "not a lock").await.expect("LPUSH");
    for _ in 0..5 {
        let locks = (0..32).map(|number| registry.lock(format!("k{number}")).acquire());
        for (number, answer) in join_all(locks).await.into_iter().enumerate() {
            match answer {
                Ok(guard) => {
                    assert_ne!(number, 7, "granted beside a value of another kind");
                    guard.release().await.expect("held to the end");
                }
                Err(error) => {
                    assert_eq!(number, 7, "{error}");
                    let shown = dlock_tests::in_full(&error);
                    assert!(matches!(error, LockError::Backend { .. }), "{error:?}");
                    assert!(shown.contains("WRONGTYPE"), "{shown}");
                }
            }
        }
    }
}

pub(super) async fn cancelled_callers_leave_nothing_and_disturb_nobody() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    for round in 0..20_u64 {
        let callers = (0..64_u64).map(|caller| {
            let lock = registry.lock(format!("k{caller}"));
            let is_cancelled = (caller + round) % 3 == 0;
            async move {
                let limit =
                    Duration::from_micros(if is_cancelled { caller * 10 } else { 60_000_000 });
                match tokio::time::timeout(limit, lock.acquire()).await {
                    Ok(guard) => guard.expect("free, or soon").release().await.expect("held"),
                    Err(_) => assert!(is_cancelled, "a neighbour was cancelled, not this call"),
                }
            }
        });
        join_all(callers).await;
    }
    registry.shutdown(Duration::from_secs(10)).await.expect("all is released");
    let left = server.cli(&["KEYS", "dlock:{*}"]);
    let left: Vec<_> =
        left.lines().filter(|key| !key.is_empty() && !key.contains(":gone:")).collect();
    assert!(left.is_empty(), "{left:?}");
}
