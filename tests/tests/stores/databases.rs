//! Leases in database tables on real servers: statements, restarts, stalls, networks, privileges.

mod batches;
mod both;
mod connections;
mod copies;
mod mysql;
pub mod postgres;
mod postgres_line;
mod tables;

use dlock_tests::servers::first_missing;
use dlock_tests::trials::Trials;

pub(super) fn add(trials: &mut Trials) {
    macro_rules! on_both {
        ($module:ident: $($test:ident),* $(,)?) => { $(
            let test = $module::$test::<postgres::Postgres>;
            trials.needs("postgres", concat!("postgres_", stringify!($test)), test);
            let test = $module::$test::<mysql::MySql>;
            trials.needs("mariadbd", concat!("mysql_", stringify!($test)), test);
        )* };
    }
    macro_rules! on_one {
        ($program:expr, $database:ident: $($test:ident),* $(,)?) => { $(
            let name = concat!(stringify!($database), "_", stringify!($test));
            trials.needs($program, name, $database::$test);
        )* };
    }
    on_both!(both:
        an_uncontended_cycle_is_two_statements,
        contended_tasks_of_one_process_cost_two_statements_each,
        contended_tasks_of_one_process_share_leases,
        processes_hand_over_without_polling,
        a_restart_keeps_the_hold,
        a_waiter_outlives_a_restart,
        a_hung_server_fails_an_acquire_at_its_deadline,
        an_acquire_that_a_stopped_server_executes_late_grants_nothing,
        a_release_that_overtakes_its_acquire_wins,
        a_cut_connection_is_replaced_during_a_hold,
        a_holder_that_is_cut_off_loses_in_time,
        a_half_open_connection_does_not_keep_a_hold,
        a_waiter_that_is_cut_off_fails_at_its_deadline,
        requests_dropped_half_way_do_not_poison_a_pool_of_one,
        an_existing_pool_can_be_used,
        unused_rows_are_deleted_and_tokens_still_grow,
        abandoned_acquires_are_eventually_forgotten,
        another_table_is_another_set_of_locks,
        an_invalid_table_name_is_refused,
        a_password_is_never_shown,
        the_documented_privileges_are_enough,
    );
    on_both!(batches:
        each_of_a_batch_has_its_own_answer,
        a_batch_that_fails_leaves_no_row_locked,
    );
    on_both!(connections:
        a_body_that_keeps_the_pools_only_connection_keeps_its_lock,
        renewals_do_not_queue_behind_acquires,
        an_abandoned_statement_ends_on_the_server,
        no_setting_is_left_on_a_pools_connections,
        a_set_commits_without_another_message_from_its_process,
        sets_of_any_size_exclude_each_other,
    );
    on_both!(copies:
        the_first_copy_of_a_resent_acquire_grants_nothing_late,
        the_first_copy_of_an_abandoned_acquire_grants_nothing_late,
        the_only_copy_of_a_failed_acquire_grants_nothing_late,
    );
    on_both!(tables:
        an_unknown_parameter_of_the_url_is_refused_by_its_name,
        a_table_without_a_column_is_refused,
        a_table_of_a_later_version_is_refused,
        a_table_of_the_previous_version_is_read,
        new_credentials_of_a_pool_apply_to_all_connections,
    );
    on_one!("postgres", postgres:
        notifications_are_sent_only_if_somebody_waits,
        every_isolation_level_works,
        a_replica_that_may_not_write_is_transient,
        preparing_ends_on_the_server,
        a_key_that_was_held_before_is_acquired_by_a_simpler_statement,
        idle_rows_are_deleted_in_pieces_and_around_locked_ones,
    );
    on_one!("postgres", postgres_line:
        a_contended_cycle_takes_three_statements,
        a_fair_caller_does_not_freeze_a_reservation,
        a_hand_over_ends_where_others_want_the_lock,
        a_line_that_disappears_is_done_without,
        a_place_that_comes_back_ends_with_the_grant,
        a_place_that_is_locked_is_passed_over,
        a_release_without_the_line_notifies_all,
        a_reservation_is_not_renewed_and_shows_a_waiter,
        a_table_of_another_kind_is_not_taken_for_a_line,
        places_of_the_dead_are_swept,
        readers_behind_a_writer_in_line_are_not_passed_over,
        sets_that_wait_are_not_passed_over,
        the_line_is_in_the_schema_of_the_leases,
        the_version_before_and_this_one_never_both_hold,
        those_who_only_poll_are_not_passed_over,
    );
    on_one!(first_missing(&["pgbouncer", "postgres"]), postgres:
        a_transaction_pooling_proxy_works,
        an_answer_to_another_statement_is_never_a_no,
        a_watch_behind_a_proxy_does_not_wait_for_notifications,
    );
    on_one!("mariadbd", mysql:
        a_deadlock_inside_an_acquire_is_retried,
        a_temporary_failure_is_transient,
        a_backend_of_one_connection_deletes_idle_rows_of_row_locks,
        every_isolation_level_works,
        a_replica_that_may_not_write_is_transient,
    );
}
