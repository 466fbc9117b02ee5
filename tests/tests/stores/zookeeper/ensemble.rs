//! Three servers, of which one is away.

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
    // Beyond what was proved before: renewed by the new leader.
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

/// The follower goes on answering reads and pings, while its leader ends the session.
pub(super) async fn a_partitioned_follower_ends_the_hold_in_time() {
    let (ensemble, links) = ZooKeeperEnsemble::start_with_links().await;
    let leader = ensemble.leader();
    assert_ne!(leader, 0, "of equals the one with the largest number leads");
    let near = registry(&ensemble.servers[0].url()).await;
    let far = registry(&ensemble.servers[leader].url()).await;
    let guard = acquire(&near, "k").await;
    let token = guard.fencing_token();
    let waiter = tokio::spawn(far.lock("k").wait(Wait::Forever).acquire());
    let watches = &ensemble.servers[leader];
    until("it waits", || watches.statistic("zk_watch_count") == 1).await;
    // A renewal goes by.
    sleep(Duration::from_secs(1)).await;
    assert!(guard.is_held());
    for link in &links {
        link.stall();
    }
    let next = waiter.await.expect("no panic").expect("the lock, when the session has ended");
    assert!(
        !guard.is_held(),
        "two holders: the leader has ended a session that is still believed in"
    );
    assert!(next.fencing_token() > token);
    let told = ensemble.servers[0].ask("ruok");
    assert_eq!(told, "imok", "the follower is to answer all the time");
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
    let away = (ensemble.leader() + 1) % 3;
    for stopped in [false, true] {
        let guard = acquire(&one, "k").await;
        let waiter = tokio::spawn(other.lock("k").wait(Wait::Forever).acquire());
        if stopped {
            ensemble.servers[away].pause();
        } else {
            ensemble.servers[away].kill();
        }
        sleep(Duration::from_millis(LONG / 2)).await;
        assert!(guard.is_held() && !waiter.is_finished());
        guard.release().await.expect("held to the end");
        waiter.await.expect("no panic").expect("the lock").release().await.expect("held");
        if stopped {
            ensemble.servers[away].resume();
        } else {
            ensemble.servers[away].restart();
        }
    }
}
