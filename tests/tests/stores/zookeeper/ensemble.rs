//! Three servers, one of which is down or partitioned.

use std::time::Duration;

use dlock_runtime::{LockError, Wait};
use dlock_tests::servers::{ZooKeeperEnsemble, ZooKeeperServer};
use tokio::time::sleep;

use super::{LONG, acquire, registry, until};

pub(super) async fn holders_and_waiters_survive_the_loss_of_the_leader() {
    let mut ensemble = ZooKeeperEnsemble::start();
    let url = ensemble.url_with(LONG);
    let (one, other) = (registry(&url).await, registry(&url).await);
    let guard = acquire(&one, "k").await;
    let waiter = tokio::spawn(other.lock("k").wait(Wait::Forever).acquire());
    let watches = |server: &ZooKeeperServer| server.statistic("zk_watch_count");
    until("it waits", || ensemble.servers.iter().map(watches).sum::<u64>() == 1).await;
    let leader = ensemble.leader();
    ensemble.servers[leader].kill();
    until("another leader", || others_lead(&ensemble, leader)).await;
    // Past the validity proved before, so the new leader has renewed it.
    sleep(Duration::from_millis(LONG)).await;
    assert!(guard.is_held() && !waiter.is_finished());
    let token = guard.fencing_token();
    guard.release().await.expect("held to the end");
    let next = waiter.await.expect("no panic").expect("the lock");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
}

fn others_lead(ensemble: &ZooKeeperEnsemble, dead: usize) -> bool {
    let mut living = (0..3).filter(|server| *server != dead);
    living.any(|server| ensemble.leads(server))
}

/// The follower keeps answering reads and pings while the leader expires the session.
pub(super) async fn a_partitioned_follower_ends_the_hold_in_time() {
    let (ensemble, links) = ZooKeeperEnsemble::start_with_links().await;
    let leader = ensemble.leader();
    assert_ne!(leader, 0, "the server with the largest id leads");
    let near = registry(&ensemble.servers[0].url()).await;
    let far = registry(&ensemble.servers[leader].url()).await;
    let guard = acquire(&near, "k").await;
    let token = guard.fencing_token();
    let waiter = tokio::spawn(far.lock("k").wait(Wait::Forever).acquire());
    let watches = &ensemble.servers[leader];
    until("it waits", || watches.statistic("zk_watch_count") == 1).await;
    // At least one renewal happens.
    sleep(Duration::from_secs(1)).await;
    assert!(guard.is_held());
    for link in &links {
        link.stall();
    }
    let next = waiter.await.expect("no panic").expect("the lock, once the session has expired");
    assert!(
        !guard.is_held(),
        "two holders: the leader has expired the session, but the holder does not know"
    );
    assert!(next.fencing_token() > token);
    let answer = ensemble.servers[0].ask("ruok");
    assert_eq!(answer, "imok", "the follower must keep answering");
    for link in &links {
        link.resume();
    }
    next.release().await.expect("held to the end");
    assert!(guard.release().await.is_err_and(|error| LockError::is_lost(&error)));
    acquire(&near, "k").await.release().await.expect("held to the end");
}

pub(super) async fn a_minority_may_be_down() {
    let mut ensemble = ZooKeeperEnsemble::start();
    let url = ensemble.url_with(LONG);
    let (one, other) = (registry(&url).await, registry(&url).await);
    let down = (ensemble.leader() + 1) % 3;
    for stopped in [false, true] {
        let guard = acquire(&one, "k").await;
        let waiter = tokio::spawn(other.lock("k").wait(Wait::Forever).acquire());
        if stopped {
            ensemble.servers[down].pause();
        } else {
            ensemble.servers[down].kill();
        }
        sleep(Duration::from_millis(LONG / 2)).await;
        assert!(guard.is_held() && !waiter.is_finished());
        guard.release().await.expect("held to the end");
        waiter.await.expect("no panic").expect("the lock").release().await.expect("held");
        if stopped {
            ensemble.servers[down].resume();
        } else {
            ensemble.servers[down].restart();
        }
    }
}
