//! What only real ZooKeeper servers can show.

mod curator;
mod ensemble;
mod load;
mod one;

use std::time::Duration;

use dlock_runtime::backend::ZooKeeper;
use dlock_runtime::{LockGuard, Registry, Wait};
use dlock_tests::servers::{CURATOR, ZOOKEEPER, ZooKeeperServer};
use dlock_tests::trials::Trials;

pub(super) fn add(trials: &mut Trials) {
    macro_rules! add {
        ($program:expr, $module:ident: $($test:ident),* $(,)?) => {
            $(trials.needs(
                $program,
                concat!(stringify!($module), "::", stringify!($test)),
                $module::$test,
            );)*
        };
    }
    add!(ZOOKEEPER, one:
        an_uncontended_cycle_is_three_requests,
        one_of_two_hundred_waiters_is_woken_by_a_release,
        a_restart_in_mid_hold_and_in_mid_wait_is_outlived,
        a_dead_server_fails_callers_at_their_deadline_and_ends_the_hold,
        a_session_that_has_ended_is_followed_by_another,
        a_node_whose_creation_was_never_answered_is_not_left,
        a_doubtful_creation_leaves_no_orphan_that_blocks_the_key,
        a_doubtful_creation_that_is_given_up_leaves_nothing,
        nothing_is_left_behind,
        credentials_guard_the_nodes,
        a_password_changes_while_services_run,
        an_outage_is_met_with_few_connections,
        locks_live_below_the_chroot,
        mistakes_are_one_clear_line,
    );
    add!(ZOOKEEPER, load:
        a_thousand_holds_are_kept,
        no_grant_of_busy_tasks_comes_too_late,
        of_a_flood_of_acquires_few_are_under_way,
    );
    add!(ZOOKEEPER, ensemble:
        the_leader_is_killed_in_mid_hold_and_in_mid_wait,
        a_follower_that_is_cut_off_ends_the_hold_in_time,
        a_minority_may_be_away,
    );
    add!(CURATOR, curator:
        both_count_to_a_thousand_together,
        each_queues_behind_the_other,
    );
}

/// A session that outlives what the test does.
const LONG: u64 = 10_000;

async fn registry(url: &str) -> Registry {
    registry_over(ZooKeeper::connect(url).await.expect("the servers run"))
}

fn registry_over(backend: ZooKeeper) -> Registry {
    let builder = Registry::builder().backend("zookeeper", backend);
    builder.default_ttl(Duration::from_secs(30)).build().expect("a registry")
}

async fn acquire(registry: &Registry, key: &str) -> LockGuard {
    registry.lock(key).wait(Wait::Forever).acquire().await.expect("the lock")
}

/// How many nodes of sessions there are.
fn nodes(server: &ZooKeeperServer) -> usize {
    server.ephemerals().len()
}

/// Waits for something that must come.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
