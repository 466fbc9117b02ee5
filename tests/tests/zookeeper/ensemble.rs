//! Three servers, of which one is away.

use std::time::{Duration, Instant};

use dlock_runtime::{LockError, Wait};
use dlock_tests::servers::{ZooKeeperEnsemble, ZooKeeperServer};
use tokio::time::sleep;

use super::{LONG, acquire, registry, until};

/// The servers but this one.
fn others(
    ensemble: &mut ZooKeeperEnsemble,
    but: usize,
) -> impl Iterator<Item = &mut ZooKeeperServer> {
    let servers = ensemble.servers.iter_mut().enumerate();
    servers.filter(move |(server, _)| *server != but).map(|(_, server)| server)
}

pub(super) async fn the_leader_is_killed_in_mid_hold_and_in_mid_wait() {
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

/// The follower goes on answering reads and pings, while the others end its sessions.
pub(super) async fn a_follower_that_is_cut_off_ends_the_hold_in_time() {
    let mut ensemble = ZooKeeperEnsemble::start();
    let follower = (ensemble.leader() + 1) % 3;
    let near = registry(&ensemble.servers[follower].url()).await;
    let guard = acquire(&near, "k").await;
    let (stopped, left) = (Instant::now(), guard.remaining());
    for server in others(&mut ensemble, follower) {
        server.pause();
    }
    let lost = guard.lost().await;
    let took = stopped.elapsed();
    assert!(lost.is_lost(), "{lost:?}");
    // A renewal may have been on its way.
    assert!(took < left + Duration::from_secs(2), "ended after {took:?}, {left:?} were left");
    for server in others(&mut ensemble, follower) {
        server.resume();
    }
    assert!(guard.release().await.is_err_and(|error| LockError::is_lost(&error)));
    acquire(&near, "k").await.release().await.expect("held to the end");
}

pub(super) async fn a_minority_may_be_away() {
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
