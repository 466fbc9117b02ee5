//! Many holds, and many that come and go.

use std::time::{Duration, Instant};

use dlock_runtime::{LockError, LockGuard, Wait};
use dlock_tests::proxy::Proxy;
use dlock_tests::servers::ZooKeeperServer;
use futures_util::future::{join_all, try_join_all};
use tokio::time::sleep;

use super::{acquire, nodes, registry, until};

/// A session timeout in milliseconds, short so that several of it pass.
const TIMEOUT: u64 = 6_000;

const REQUESTS: &str = "zk_packets_received";

/// One of them at a time: each needs the machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How many holds there are at once.
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
    until("all are given back", || nodes(&server) == 0).await;
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
                // A grant that comes too late is an error where nobody waits.
                let lock = registry.lock(format!("k{task}")).wait(Duration::ZERO);
                match lock.acquire().await {
                    Ok(guard) => guard.release().await?,
                    // The machine may be slow; but what was granted is to be of use.
                    Err(error) => assert!(!error.to_string().contains("came after"), "{error}"),
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

/// How many locks are asked for at one moment.
const FLOOD: usize = 3_000;

/// Renewals come after what is under way, on the session's only connection: so that is to be little.
pub(super) async fn a_flood_of_acquires_keeps_few_requests_in_flight() {
    let _alone = ALONE.lock().await;
    let server = ZooKeeperServer::start();
    let proxy = Proxy::start(server.port()).await;
    let url = server.url_with(super::LONG);
    let registry =
        registry(&url.replace(&server.port().to_string(), &proxy.port().to_string())).await;
    acquire(&registry, "k").await.release().await.expect("held");
    proxy.stall_answers();
    let before = server.statistic(REQUESTS);
    let flood = (0..FLOOD).map(|number| {
        let registry = registry.clone();
        tokio::spawn(async move {
            let lock = registry.lock(format!("k{number}")).wait(Wait::Forever);
            lock.acquire().await?.release().await
        })
    });
    let flood: Vec<_> = flood.collect();
    // What is not answered counts for half a second.
    let sent = || server.statistic(REQUESTS) - before;
    until("some are under way", || sent() >= 64).await;
    sleep(Duration::from_millis(300)).await;
    let sent = sent();
    assert!(sent < 500, "{sent} requests are under way");
    proxy.resume();
    for answer in join_all(flood).await {
        answer.expect("no panic").expect("held to the end");
    }
}
