//! Redlock on five real servers.

mod batches;
mod connecting;
mod faults;
mod marks;
mod protocol;

use std::time::Duration;

use dlock_runtime::Registry;
use dlock_runtime::backend::Redlock;
use dlock_tests::servers::{RedisNodes, RedisServer};
use dlock_tests::trials::Trials;

use super::steps::{self, acquire, scripts_run};

/// `add!(trials: module::{test, test, …})`
macro_rules! add {
    ($trials:ident: $module:ident::{$($test:ident),* $(,)?}) => {
        $($trials.needs(
            "redis-server",
            concat!(stringify!($module), "::", stringify!($test)),
            $module::$test,
        );)*
    };
}

pub(super) fn add(trials: &mut Trials) {
    add!(trials: protocol::{
        an_uncontended_cycle_is_two_commands_on_each_node,
        nodes_that_disagree_on_the_token_cost_one_extra_round_trip,
        one_of_several_concurrent_acquires_succeeds,
        processes_hand_over_by_messages,
        a_lock_that_a_node_lost_is_restored_at_the_next_renewal,
        a_force_released_lock_is_not_reacquired,
        a_late_renewal_does_not_restore_a_released_lock,
        nothing_but_expiring_keys_and_the_mark_is_left_behind,
    });
    add!(trials: batches::{
        a_node_executes_ten_commands_for_an_uncontended_cycle,
        callers_that_are_ready_together_share_commands,
        a_value_of_another_kind_fails_only_its_own_lock,
        a_value_of_another_kind_fails_only_its_own_renewal,
        claims_of_one_lock_that_go_out_together_are_granted_one_by_one,
        without_new_permissions_each_lock_is_looked_at_on_its_own,
    });
    add!(trials: faults::{
        two_nodes_killed_stopped_or_emptied_at_any_moment,
        nobody_enters_while_a_majority_is_dead,
        a_majority_stopped_ends_the_hold_in_time_and_leaves_nothing,
        nodes_that_were_stopped_execute_late_and_hold_nothing,
        two_networks_cut_and_healed,
        a_majority_of_half_open_networks,
        a_half_open_connection_is_replaced,
    });
    add!(trials: marks::{
        an_emptied_node_does_not_make_a_second_majority,
        a_restarted_node_counts_after_its_quarantine,
        a_flushed_node_is_noticed_over_its_old_connection,
        a_brand_new_deployment_is_declared,
        some_new_nodes_are_not_a_new_deployment,
        processes_that_declare_it_together_all_succeed,
    });
    add!(trials: connecting::{
        an_invalid_url_is_a_one_line_error,
        each_node_has_its_own_password_and_none_is_shown,
        a_node_that_evicts_is_refused,
        the_documented_permissions_are_enough,
        a_minority_may_be_down_at_startup,
        leases_longer_than_configured_are_refused,
    });
}

/// A backend whose restarted nodes count again soon.
async fn backend(nodes: &RedisNodes) -> Redlock {
    backend_at(nodes.urls()).await
}

async fn backend_at(urls: Vec<String>) -> Redlock {
    let builder = Redlock::builder().bootstrap(true);
    let builder = builder.max_lease(LONGEST).clock_tolerance(Duration::from_millis(700));
    builder.connect(urls).await.expect("the nodes run")
}

/// The longest lease of these tests. A node that may have forgotten locks is quarantined for about as long.
const LONGEST: Duration = Duration::from_secs(2);

async fn registry(nodes: &RedisNodes) -> Registry {
    registry_over(backend(nodes).await)
}

fn registry_over(backend: Redlock) -> Registry {
    let builder = Registry::builder().backend("redlock", backend).default_ttl(LONGEST);
    builder.build().expect("a registry")
}

/// Waits until all these nodes count again.
async fn all_count(servers: &[RedisServer]) {
    for server in servers {
        while !counts(server) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether this node has a mark whose quarantine is over.
fn counts(server: &RedisServer) -> bool {
    let mark = server.cli(&["GET", "dlock:mark"]);
    let time = server.cli(&["TIME"]);
    let mut time = time.lines().map(|part| part.trim().parse::<u64>().expect("a number"));
    let (seconds, micros) = (time.next().expect("seconds"), time.next().expect("microseconds"));
    let from = mark.trim().split(':').nth(1).and_then(|from| from.parse::<u64>().ok());
    from.is_some_and(|from| from <= seconds * 1_000 + micros / 1_000)
}
