//! Commands on the wire, and stored keys.

use std::time::{Duration, Instant};

use dlock_runtime::backend::{Attempt, Backend, Claim, Release, Released, Renewal};
use dlock_runtime::{LockError, Registry};
use dlock_tests::servers::{RedisNodes, RedisServer};
use tokio::time::sleep;

use super::{LONGEST, acquire, backend, registry, registry_over, scripts_run, steps};

/// Runs ten cycles and returns how many scripts each node has run, waiting for up to 10 s until a node
/// reaches its expected count.
async fn ten_cycles<const N: usize>(
    nodes: &[RedisServer],
    registry: &Registry,
    expected: [u64; N],
) -> [u64; N] {
    assert_eq!(nodes.len(), N);
    let before: Vec<_> = nodes.iter().map(scripts_run).collect();
    for number in 0..10 {
        acquire(registry, &format!("k{number}")).await.release().await.expect("held");
    }
    let mut counts = [0; N];
    for (index, node) in nodes.iter().enumerate() {
        // A node that is slower than the majority may not have executed the last release yet.
        let began = Instant::now();
        let count = || scripts_run(node) - before[index];
        while count() < expected[index] && began.elapsed() < Duration::from_secs(10) {
            sleep(Duration::from_millis(5)).await;
        }
        counts[index] = count();
    }
    counts
}

pub(super) async fn an_uncontended_cycle_is_two_commands_on_each_node() {
    let nodes = RedisNodes::start();
    let registry = registry(&nodes).await;
    // The first use of a script loads it.
    ten_cycles(&nodes.servers, &registry, [20; 5]).await;
    assert_eq!(ten_cycles(&nodes.servers, &registry, [20; 5]).await, [20; 5]);
}

pub(super) async fn nodes_that_disagree_on_the_token_cost_one_extra_round_trip() {
    let mut nodes = RedisNodes::start();
    let registry = registry(&nodes).await;
    // Each of the remaining three is in every majority, however slow it is.
    for server in &mut nodes.servers[..2] {
        server.kill();
    }
    let majority = &nodes.servers[2..];
    // One of them has issued a token ahead of all clocks.
    let ahead = 2_000_000_000_000_000_u64;
    let disagree = |key: &str| {
        let key = format!("dlock:{{{key}}}:token");
        let _ = majority[1].cli(&["SET", &key, &ahead.to_string(), "EX", "3600"]);
    };
    // The first use of a script loads it.
    disagree("warm");
    acquire(&registry, "warm").await.release().await.expect("held");
    (0..10).for_each(|number| disagree(&format!("k{number}")));
    // The other two are raised to it.
    assert_eq!(ten_cycles(majority, &registry, [30, 20, 30]).await, [30, 20, 30]);
    // From now on they agree again and continue from there.
    assert_eq!(ten_cycles(majority, &registry, [20; 3]).await, [20; 3]);
    let guard = acquire(&registry, "k7").await;
    assert_eq!(guard.fencing_token().get(), ahead + 3);
    guard.release().await.expect("held to the end");
}

/// With simultaneous acquires, none may find a majority free at first. Then they retry.
pub(super) async fn one_of_several_concurrent_acquires_succeeds() {
    let nodes = RedisNodes::start();
    let mut registries = vec![];
    for _ in 0..6 {
        registries.push(registry_over(backend(&nodes).await));
    }
    for round in 0..20 {
        let key = format!("k{round}");
        let attempts = registries.iter().map(|registry| {
            tokio::spawn(registry.lock(key.clone()).wait(Duration::ZERO).acquire())
        });
        let attempts: Vec<_> = attempts.collect();
        let mut guards = vec![];
        for attempt in attempts {
            match attempt.await.expect("no panic") {
                Ok(guard) => guards.push(guard),
                Err(error) => assert!(error.is_busy(), "{error:?}"),
            }
        }
        assert_eq!(guards.len(), 1, "holders in round {round}");
        guards.remove(0).release().await.expect("held to the end");
    }
}

pub(super) async fn processes_hand_over_by_messages() {
    let nodes = RedisNodes::start();
    let registries = [registry(&nodes).await, registry(&nodes).await];
    steps::hand_over_without_polling(&registries).await;
}

pub(super) async fn a_lock_that_a_node_lost_is_restored_at_the_next_renewal() {
    let nodes = RedisNodes::start();
    let registry = registry(&nodes).await;
    let guard = acquire(&registry, "k").await;
    let stored = nodes.servers[0].cli(&["GET", "dlock:{k}"]);
    let token = guard.fencing_token().to_string();
    let end = stored.find(&token).expect("owner:token:round:claimant") + token.len();
    let owner_and_token = stored[..end].to_owned();
    for server in &nodes.servers[..2] {
        let _ = server.cli(&["DEL", "dlock:{k}", "dlock:{k}:token"]);
    }
    let is_restored = |server: &dlock_tests::servers::RedisServer| {
        server.cli(&["GET", "dlock:{k}"]).starts_with(&owner_and_token)
            && server.cli(&["GET", "dlock:{k}:token"]).trim() == token
    };
    let began = Instant::now();
    while !nodes.servers.iter().all(is_restored) {
        assert!(began.elapsed() < Duration::from_secs(20), "not restored");
        sleep(Duration::from_millis(20)).await;
    }
    guard.release().await.expect("held to the end");
}

pub(super) async fn a_force_released_lock_is_not_reacquired() {
    let nodes = RedisNodes::start();
    let registries = [registry(&nodes).await, registry(&nodes).await];
    let guard = acquire(&registries[0], "k").await;
    assert!(registries[1].lock("k").force_release().await.expect("an answer"));
    let lost = guard.lost().await;
    assert!(lost.is_lost(), "{lost:?}");
    for server in &nodes.servers {
        assert_eq!(server.cli(&["EXISTS", "dlock:{k}"]).trim(), "0", "it was reacquired");
    }
    let next = acquire(&registries[1], "k").await;
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(guard.release().await.is_err_and(|error| LockError::is_lost(&error)));
    next.release().await.expect("held to the end");
}

pub(super) async fn nothing_but_expiring_keys_and_the_mark_is_left_behind() {
    let nodes = RedisNodes::start();
    let registry = registry(&nodes).await;
    for number in 0..20 {
        acquire(&registry, &format!("k{number}")).await.release().await.expect("held");
        // Some are abandoned in flight, which leaves a tombstone.
        let lock = registry.lock(format!("gone{number}"));
        drop(tokio::time::timeout(Duration::from_micros(number * 20), lock.acquire()).await);
    }
    registry.shutdown(Duration::from_secs(10)).await.expect("all is released");
    for server in &nodes.servers {
        for key in server.cli(&["KEYS", "*"]).lines().filter(|key| *key != "dlock:mark") {
            assert!(key.ends_with(":token") || key.contains(":gone:"), "{key} is left behind");
            let left: i64 = server.cli(&["TTL", key]).trim().parse().expect("a number");
            assert!((1..=3_600).contains(&left), "{key} expires in {left} s");
        }
    }
}

/// A node that did not answer a renewal may execute it after the release, and would restore the lock.
pub(super) async fn a_late_renewal_does_not_restore_a_released_lock() {
    let mut nodes = RedisNodes::start();
    let backend = backend(&nodes).await;
    let claim = Claim::new("k".into(), LONGEST);
    let acquired = Backend::try_acquire(&backend, &claim).await.expect("the nodes run");
    assert!(matches!(acquired, Attempt::Granted { .. }), "{acquired:?}");
    nodes.servers[0].pause();
    let renewed = Backend::renew(&backend, &claim).await.expect("a majority runs");
    assert!(matches!(renewed, Renewal::Renewed { .. }), "{renewed:?}");
    let released = Backend::release(&backend, &claim, Release::default()).await;
    assert_eq!(released.expect("a majority runs"), Released::Released);
    nodes.servers[0].resume();
    // The node that was silent executes the release too, which it owes or has received.
    let tombstone = format!("dlock:{{k}}:gone:{}", claim.owner);
    for server in &nodes.servers {
        let began = Instant::now();
        while server.cli(&["EXISTS", &tombstone]).trim() != "1" {
            assert!(began.elapsed() < Duration::from_secs(10), "no tombstone");
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(server.cli(&["EXISTS", "dlock:{k}"]).trim(), "0", "still held");
    }
}
