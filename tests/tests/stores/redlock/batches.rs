//! What goes over the wire, and what the nodes do for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dlock_runtime::backend::{Attempt, Backend, Claim, Release, Released, Renewal};
use dlock_runtime::{LockError, Registry};
use dlock_tests::servers::{RedisNodes, RedisServer};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::{LONGEST, acquire, backend, registry};

/// How often the server has executed each command, those that scripts call among them.
fn executed(server: &RedisServer) -> BTreeMap<String, u64> {
    let info = server.cli(&["INFO", "commandstats"]);
    let calls = info.lines().filter_map(|line| {
        let (name, stats) = line.trim().strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let is_ours = !name.starts_with("config") && name != "info";
        is_ours.then_some((name.to_owned(), stats.split(',').next()?.parse().ok()?))
    });
    calls.collect()
}

fn reset(nodes: &RedisNodes) {
    for server in &nodes.servers {
        let _ = server.cli(&["CONFIG", "RESETSTAT"]);
    }
}

async fn cycle(registry: &Registry, key: &str) {
    acquire(registry, key).await.release().await.expect("held to the end");
}

/// The three nodes that are alive of five. They are in every majority: one outside it may be slow, and see a release
/// before its acquire.
async fn three_of_five() -> (RedisNodes, Registry) {
    let mut nodes = RedisNodes::start();
    let registry = registry(&nodes).await;
    nodes.servers.truncate(3);
    cycle(&registry, "warm").await;
    executed_for(&nodes, 1).await;
    reset(&nodes);
    (nodes, registry)
}

/// What each node has executed, once it has released so many locks.
async fn executed_for(nodes: &RedisNodes, locks: u64) -> Vec<BTreeMap<String, u64>> {
    let began = Instant::now();
    loop {
        let executed: Vec<_> = nodes.servers.iter().map(executed).collect();
        if executed.iter().all(|executed| executed.get("publish") == Some(&locks)) {
            return executed;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{executed:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn a_node_executes_ten_commands_for_an_uncontended_cycle() {
    let (nodes, registry) = three_of_five().await;
    for number in 0..100 {
        cycle(&registry, &format!("k{number}")).await;
    }
    let expected = [
        ("evalsha", 200),
        // The mark.
        ("get", 100),
        ("time", 100),
        ("mget", 200),
        // No token of these keys is known.
        ("exists", 100),
        ("set", 200),
        ("del", 100),
        ("publish", 100),
    ];
    let expected = expected.map(|(name, calls)| (name.to_owned(), calls));
    for executed in executed_for(&nodes, 100).await {
        assert_eq!(executed, BTreeMap::from(expected.clone()));
    }
}

pub(super) async fn callers_that_are_ready_together_share_commands() {
    const CALLERS: usize = 64;
    const CYCLES: usize = 20;
    let (nodes, registry) = three_of_five().await;
    let callers = (0..CALLERS).map(|caller| {
        let registry = registry.clone();
        tokio::spawn(async move {
            for number in 0..CYCLES {
                cycle(&registry, &format!("k{caller}:{number}")).await;
            }
        })
    });
    for caller in join_all(callers.collect::<Vec<_>>()).await {
        caller.expect("no panic");
    }
    let cycles = (CALLERS * CYCLES) as u64;
    for executed in executed_for(&nodes, cycles).await {
        let of = |command| executed.get(command).copied().unwrap_or(0);
        assert!(of("evalsha") * 3 <= 2 * cycles, "{executed:?}");
        // Beside these, each call executes a few commands for all of its requests.
        let for_each = ["set", "publish"];
        let shared = executed.iter().filter(|(name, _)| !for_each.contains(&name.as_str()));
        assert!(shared.map(|(_, calls)| calls).sum::<u64>() <= 5 * of("evalsha"), "{executed:?}");
        assert_eq!(of("set"), 2 * cycles, "the lock and its last token");
    }
}

pub(super) async fn a_value_of_another_kind_fails_only_its_own_lock() {
    let nodes = RedisNodes::start();
    let registry = registry(&nodes).await;
    for server in &nodes.servers[..3] {
        for name in ["dlock:{k7}", "dlock:{k8}:token"] {
            let _ = server.cli(&["LPUSH", name, "not of a lock"]);
        }
    }
    for _ in 0..5 {
        let locks = (0..32).map(|number| {
            registry.lock(format!("k{number}")).wait(Duration::from_millis(100)).acquire()
        });
        for (number, answer) in join_all(locks).await.into_iter().enumerate() {
            match answer {
                Ok(guard) => {
                    assert!(![7, 8].contains(&number), "{number} has a value of another kind");
                    guard.release().await.expect("held to the end");
                }
                Err(error) => {
                    assert!([7, 8].contains(&number), "{number}: {error}");
                    let shown = dlock_tests::in_full(&error);
                    assert!(matches!(error, LockError::Backend { .. }), "{error:?}");
                    assert!(shown.contains("WRONGTYPE"), "{shown}");
                }
            }
        }
    }
    for server in &nodes.servers[..3] {
        for name in ["dlock:{k7}", "dlock:{k8}:token"] {
            assert_eq!(server.cli(&["TYPE", name]).trim(), "list", "{name} was overwritten");
        }
    }
}

/// Three of five nodes have lost the locks, so a renewal reads the tombstones and the last tokens.
pub(super) async fn a_value_of_another_kind_fails_only_its_own_renewal() {
    const CLAIMS: usize = 32;
    let nodes = RedisNodes::start();
    let backend = backend(&nodes).await;
    let mut claims: Vec<_> =
        (0..CLAIMS).map(|number| Claim::new(format!("k{number}").into(), LONGEST)).collect();
    for claim in &mut claims {
        let answer = backend.try_acquire(claim).await;
        let Ok(Attempt::Granted { token, .. }) = answer else { panic!("{answer:?}") };
        claim.token = Some(token);
    }
    let of_another_kind =
        [format!("dlock:{{k7}}:gone:{}", claims[7].owner), "dlock:{k8}:token".to_owned()];
    let locks: Vec<_> = (0..CLAIMS).map(|number| format!("dlock:{{k{number}}}")).collect();
    let lost: Vec<_> = ["DEL"].into_iter().chain(locks.iter().map(String::as_str)).collect();
    for _ in 0..5 {
        for server in &nodes.servers[..3] {
            let _ = server.cli(&lost);
            for name in &of_another_kind {
                let _ = server.cli(&["DEL", name]);
                let _ = server.cli(&["LPUSH", name, "not of a lock"]);
            }
        }
        for (number, answer) in backend.renew_many(&claims).all(CLAIMS).await.iter().enumerate() {
            if [7, 8].contains(&number) {
                let error = answer.as_ref().expect_err("it has a value of another kind");
                assert!(dlock_tests::in_full(&error).contains("WRONGTYPE"), "{number}: {error}");
            } else {
                assert!(matches!(answer, Ok(Renewal::Renewed { .. })), "{number}: {answer:?}");
            }
        }
    }
    for server in &nodes.servers[..3] {
        for name in &of_another_kind {
            assert_eq!(server.cli(&["TYPE", name]).trim(), "list", "{name} was overwritten");
        }
    }
}

/// Several registries of one process may share a backend, so one call may ask several times for a lock.
pub(super) async fn claims_of_one_lock_that_go_out_together_are_granted_one_by_one() {
    let nodes = RedisNodes::start();
    let backend = backend(&nodes).await;
    let mut last = None;
    for _ in 0..5 {
        let claims: Vec<_> = (0..16).map(|_| Claim::new("k".into(), LONGEST)).collect();
        let answers = join_all(claims.iter().map(|claim| backend.try_acquire(claim))).await;
        let mut granted = vec![];
        for (claim, answer) in claims.iter().zip(answers) {
            if let Ok(Attempt::Granted { token, .. }) = answer {
                assert!(Some(token) > last, "{token} after {last:?}");
                last = Some(token);
                granted.push(claim);
            }
        }
        assert!(granted.len() <= 1, "{granted:?}");
        let Some(claim) = granted.pop() else { continue };
        // Only one of these may find the lease, and none of them ends its rest.
        let rest = Release { keep_for: Some(LONGEST / 2), late_acquire: false };
        let asked = (0..4).map(|_| backend.release(claim, rest));
        let answers = join_all(asked).await.into_iter();
        let found = answers.filter(|answer| matches!(answer, Ok(Released::Released)));
        assert!(found.count() <= 1);
        let rival = backend.try_acquire(&Claim::new("k".into(), LONGEST)).await;
        assert!(!matches!(rival, Ok(Attempt::Granted { .. })), "{rival:?}");
        sleep(LONGEST / 2).await;
    }
    assert!(last.is_some(), "nothing was granted");
}

/// Users of the version before had no permission for `MGET` and `EXISTS`.
pub(super) async fn without_new_permissions_each_lock_is_looked_at_on_its_own() {
    let nodes = RedisNodes::start();
    for server in &nodes.servers {
        let words = ["ACL", "SETUSER", "default", "-mget", "-exists"];
        assert!(server.cli(&words).starts_with("OK"));
    }
    let registry = registry(&nodes).await;
    let locks = (0..32).map(|number| registry.lock(format!("k{number}")).acquire());
    for guard in join_all(locks).await {
        let guard = guard.expect("free");
        let again = registry.lock(guard.key().as_str()).wait(Duration::ZERO).acquire().await;
        assert!(again.is_err_and(|error| error.is_busy()));
        guard.release().await.expect("held to the end");
    }
}
