//! Requests of independent callers that go out together.

use std::time::Duration;

use dlock_runtime::{LockError, LockGuard, Registry, Wait};
use dlock_tests::proxy::Proxy;
use dlock_tests::servers::ZooKeeperServer;
use futures_util::future::{join_all, try_join_all};
use tokio::time::sleep;

use super::{LONG, acquire, nodes, registry, until};

const TASKS: usize = 64;

const REQUESTS: &str = "zk_packets_received";

/// Acquires a lock for each task at the same moment.
async fn acquire_all(registry: &Registry) -> Vec<LockGuard> {
    let lock = |task| registry.lock(format!("k{task}")).wait(Wait::Forever).acquire();
    try_join_all((0..TASKS).map(lock)).await.expect("the locks")
}

async fn release_all(guards: Vec<LockGuard>) -> Vec<Result<(), LockError>> {
    join_all(guards.into_iter().map(LockGuard::release)).await
}

pub(super) async fn concurrent_callers_share_their_requests() {
    const ROUNDS: u64 = 10;
    let server = ZooKeeperServer::start_leaving_folders();
    let registry = registry(&server.url_with(LONG)).await;
    for _ in 0..2 {
        let before = server.statistic(REQUESTS);
        let mut tokens = vec![0; TASKS];
        for _ in 0..ROUNDS {
            let guards = acquire_all(&registry).await;
            assert_eq!(nodes(&server), TASKS);
            for (last, guard) in tokens.iter_mut().zip(&guards) {
                let token = guard.fencing_token().get();
                assert!(token > *last, "{token} follows {last}");
                *last = token;
            }
            for answer in release_all(guards).await {
                answer.expect("held to the end");
            }
        }
        let requests = server.statistic(REQUESTS) - before;
        // One caller's own requests, and batches of sixteen or more of the others, each with a read; and the same for
        // the releases. One at a time they would be 1920.
        assert!(requests <= ROUNDS * 32, "{requests} requests for {} cycles", ROUNDS * 64);
    }
    assert_eq!(nodes(&server), 0);
}

pub(super) async fn one_removed_node_fails_only_its_own_release() {
    let server = ZooKeeperServer::start();
    let url = server.url_with(LONG);
    let (registry, operator) = (registry(&url).await, self::registry(&url).await);
    let guards = acquire_all(&registry).await;
    assert!(operator.force_release("k7").await.expect("allowed"), "it was held");
    for (task, answer) in release_all(guards).await.into_iter().enumerate() {
        match answer {
            Ok(()) => assert_ne!(task, 7, "its node was gone"),
            Err(error) => assert!(task == 7 && error.is_lost(), "{task}: {error:?}"),
        }
    }
    assert_eq!(nodes(&server), 0);
}

pub(super) async fn removed_folders_are_created_again_together() {
    let server = ZooKeeperServer::start();
    let registry = registry(&server.url_with(LONG)).await;
    let before = server.statistic("zk_znode_count");
    for _ in 0..2 {
        for answer in release_all(acquire_all(&registry).await).await {
            answer.expect("held to the end");
        }
        // At most the root is left.
        until("the folders are removed", || server.statistic("zk_znode_count") <= before + 1).await;
    }
    // Some folders exist and some do not.
    acquire(&registry, "k3").await.release().await.expect("held to the end");
    for answer in release_all(acquire_all(&registry).await).await {
        answer.expect("held to the end");
    }
}

pub(super) async fn cancelled_members_of_a_batch_leave_nothing() {
    let server = ZooKeeperServer::start_leaving_folders();
    let proxy = Proxy::start(server.port()).await;
    let url = server.url_with(LONG);
    let url = url.replace(&server.port().to_string(), &proxy.port().to_string());
    let registry = registry(&url).await;
    let warm = acquire_all(&registry).await;
    for answer in release_all(warm).await {
        answer.expect("held to the end");
    }
    // The last round is cancelled while its requests wait to be sent.
    for cancelled_when_sent in [true, true, false] {
        proxy.stall_answers();
        let acquires: Vec<_> = (0..TASKS)
            .map(|task| registry.lock(format!("k{task}")).wait(Wait::Forever).acquire())
            .map(tokio::spawn)
            .collect();
        if cancelled_when_sent {
            until("some are created", || nodes(&server) > 1).await;
        }
        let (mut kept, mut cancelled) = (vec![], vec![]);
        for (task, acquire) in acquires.into_iter().enumerate() {
            if task % 2 == 0 { kept.push(acquire) } else { cancelled.push(acquire) }
        }
        for acquire in cancelled {
            acquire.abort();
        }
        sleep(Duration::from_millis(50)).await;
        proxy.resume();
        let guards = join_all(kept).await.into_iter();
        let guards: Vec<_> = guards.map(|one| one.expect("no panic").expect("held")).collect();
        until("the cancelled ones are gone", || nodes(&server) == TASKS / 2).await;
        for answer in release_all(guards).await {
            answer.expect("held to the end");
        }
        until("nothing is left", || nodes(&server) == 0).await;
    }
}
