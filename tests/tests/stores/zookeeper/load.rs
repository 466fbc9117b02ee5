//! Many holds at once, and many acquires and releases.

use std::time::{Duration, Instant};

use dlock_runtime::{LockError, LockGuard, Wait};
use dlock_tests::proxy::Proxy;
use dlock_tests::servers::ZooKeeperServer;
use futures_util::future::{join_all, try_join_all};
use tokio::time::sleep;

use super::{acquire, nodes, registry, steps, until};

/// A session timeout in milliseconds, short enough for a test to span several.
const TIMEOUT: u64 = 6_000;

const REQUESTS: &str = "zk_packets_received";

/// Runs these tests one at a time: each needs the whole machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The number of concurrent holds.
const HOLDS: usize = 1_000;

pub(super) async fn a_thousand_holds_are_kept() {
    let _alone = ALONE.lock().await;
    let server = ZooKeeperServer::start();
    let registry = registry(&server.url_with(TIMEOUT)).await;
    let lock = |number| registry.lock(format!("k{number}")).wait(Wait::Forever).acquire();
    let guards = try_join_all((0..HOLDS).map(lock)).await.expect("the locks");
    // Each is renewed several times.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(TIMEOUT * 2) {
        let lost = guards.iter().filter(|guard| !guard.is_held()).count();
        assert_eq!(lost, 0, "of {HOLDS} after {:?}", began.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(nodes(&server), HOLDS);
    let released = join_all(guards.into_iter().map(LockGuard::release)).await;
    for answer in released {
        answer.expect("held to the end");
    }
    until("all are released", || nodes(&server) == 0).await;
}

pub(super) async fn busy_tasks_get_no_late_grants() {
    let _alone = ALONE.lock().await;
    let server = ZooKeeperServer::start();
    let registry = registry(&server.url_with(TIMEOUT)).await;
    let began = Instant::now();
    let busy = |task: usize| {
        let registry = registry.clone();
        tokio::spawn(async move {
            let mut cycles = 0_u64;
            while began.elapsed() < Duration::from_millis(TIMEOUT * 2) {
                // Without a wait, a grant that arrives too late is an error.
                let lock = registry.lock(format!("k{task}")).wait(Duration::ZERO);
                match lock.acquire().await {
                    Ok(guard) => guard.release().await?,
                    // The machine may be slow, but a grant must still be usable.
                    Err(error) => {
                        assert!(!dlock_tests::in_full(&error).contains("came after"), "{error}");
                    }
                }
                cycles += 1;
            }
            Ok::<_, LockError>(cycles)
        })
    };
    let cycles = try_join_all((0..64).map(busy)).await.expect("no panic");
    for answer in cycles {
        assert!(answer.expect("each grant in time") > 0);
    }
}

pub(super) async fn a_flood_of_acquires_keeps_few_requests_in_flight() {
    let _alone = ALONE.lock().await;
    let server = ZooKeeperServer::start();
    let proxy = Proxy::start(server.port()).await;
    let url = server.url_with(super::LONG);
    let registry =
        registry(&url.replace(&server.port().to_string(), &proxy.port().to_string())).await;
    acquire(&registry, "k").await.release().await.expect("held");
    let requests = || server.statistic(REQUESTS);
    let lock = |key| registry.lock(key).wait(Wait::Forever);
    steps::assert_flood_keeps_few_in_flight(&proxy, 4, requests, lock).await;
}
