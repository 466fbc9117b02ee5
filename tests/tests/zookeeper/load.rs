//! Many holds, and many that come and go.

use std::time::{Duration, Instant};

use dlock_runtime::Wait;
use dlock_tests::servers::ZooKeeperServer;
use futures_util::future::{join_all, try_join_all};
use tokio::time::sleep;

use super::{acquire, nodes, registry};

/// A session timeout in milliseconds, short so that much of it passes.
const TIMEOUT: u64 = 4_000;

/// How many holds there are at once.
const HOLDS: usize = 1_000;

pub(super) async fn a_thousand_holds_are_kept() {
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
    let released = join_all(guards.into_iter().map(dlock_runtime::LockGuard::release)).await;
    for answer in released {
        answer.expect("held to the end");
    }
    assert_eq!(nodes(&server), 0);
}

pub(super) async fn no_grant_of_busy_tasks_comes_too_late() {
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
                lock.acquire().await?.release().await?;
                cycles += 1;
            }
            Ok::<_, dlock_runtime::LockError>(cycles)
        })
    };
    let cycles = try_join_all((0..64).map(busy)).await.expect("no panic");
    for answer in cycles {
        assert!(answer.expect("each grant in time") > 0);
    }
}

/// How many locks are asked for at one moment.
const FLOOD: usize = 6_000;

pub(super) async fn a_hold_is_renewed_amid_a_flood_of_acquires() {
    let server = ZooKeeperServer::start();
    let registry = registry(&server.url_with(TIMEOUT)).await;
    let guard = acquire(&registry, "held").await;
    let flood = (0..FLOOD).map(|number| {
        let registry = registry.clone();
        tokio::spawn(async move {
            let lock = registry.lock(format!("k{number}")).wait(Wait::Forever);
            lock.acquire().await?.release().await
        })
    });
    for answer in join_all(flood.collect::<Vec<_>>()).await {
        answer.expect("no panic").expect("held to the end");
    }
    assert!(guard.is_held(), "its renewals waited behind the acquires");
    guard.release().await.expect("held to the end");
}
