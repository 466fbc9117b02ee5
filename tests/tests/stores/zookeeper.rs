//! ZooKeeper on real servers.

mod batches;
mod curator;
mod ensemble;
mod load;
mod one;

use std::time::Duration;

use dlock_runtime::Registry;
use dlock_runtime::backend::ZooKeeper;
use dlock_tests::servers::{CURATOR, ZOOKEEPER, ZooKeeperServer};
use dlock_tests::trials::Trials;

use super::steps::{self, acquire, until};

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
        a_release_wakes_one_of_two_hundred_waiters,
        holders_and_waiters_survive_a_restart,
        a_dead_server_fails_callers_at_their_deadline_and_ends_the_hold,
        an_expired_session_is_replaced,
        a_node_whose_creation_got_no_reply_is_removed,
        an_unconfirmed_creation_leaves_no_orphan_that_blocks_the_key,
        an_abandoned_unconfirmed_creation_leaves_nothing,
        nothing_is_left_behind,
        credentials_guard_the_nodes,
        a_password_changes_while_services_run,
        an_outage_causes_few_connections,
        locks_live_below_the_chroot,
        an_invalid_url_is_a_one_line_error,
    );
    add!(ZOOKEEPER, batches:
        concurrent_callers_share_their_requests,
        one_removed_node_fails_only_its_own_release,
        removed_folders_are_created_again_together,
        cancelled_members_of_a_batch_leave_nothing,
    );
    add!(ZOOKEEPER, load:
        a_thousand_holds_are_kept,
        busy_tasks_get_no_late_grants,
        a_flood_of_acquires_keeps_few_requests_in_flight,
    );
    add!(ZOOKEEPER, ensemble:
        holders_and_waiters_survive_the_loss_of_the_leader,
        a_partitioned_follower_ends_the_hold_in_time,
        a_minority_may_be_down,
    );
    add!(CURATOR, curator:
        both_count_to_a_thousand_together,
        each_queues_behind_the_other,
    );
}

/// A session timeout in milliseconds, long enough to outlive a test.
const LONG: u64 = 10_000;

async fn registry(url: &str) -> Registry {
    registry_over(ZooKeeper::connect(url).await.expect("the servers run"))
}

fn registry_over(backend: ZooKeeper) -> Registry {
    let builder = Registry::builder().backend("zookeeper", backend);
    builder.default_ttl(Duration::from_secs(30)).build().expect("a registry")
}

/// The number of ephemeral nodes on the server.
fn nodes(server: &ZooKeeperServer) -> usize {
    server.ephemerals().len()
}
