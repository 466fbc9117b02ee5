//! What only a real database server can show of leases in its tables: statements, restarts, stalls,
//! networks, privileges.

mod both;
mod connections;
mod copies;
mod mysql;
mod postgres;
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
        processes_hand_over_without_the_safety_net,
        a_restart_keeps_the_hold,
        a_waiter_outlives_a_restart,
        a_hung_server_fails_an_acquire_at_its_deadline,
        an_acquire_that_a_stopped_server_executes_late_grants_nothing,
        a_release_that_overtakes_its_acquire_wins,
        a_cut_connection_is_replaced_in_mid_hold,
        a_holder_that_is_cut_off_loses_in_time,
        a_half_open_connection_does_not_keep_a_hold,
        a_waiter_that_is_cut_off_has_its_answer_in_time,
        requests_dropped_half_way_do_not_poison_a_pool_of_one,
        an_existing_pool_serves,
        unused_rows_are_deleted_and_their_tokens_outlived,
        given_up_acquires_leave_nothing_for_long,
        another_table_is_another_set_of_locks,
        a_name_that_is_no_table_is_refused,
        a_password_is_never_shown,
        the_documented_privileges_are_enough,
    );
    on_both!(connections:
        a_body_that_keeps_the_pools_only_connection_keeps_its_lock,
        renewals_do_not_queue_behind_acquires,
        a_statement_that_was_given_up_ends_on_the_server,
        no_setting_is_left_on_a_pools_connections,
        a_set_is_taken_without_another_word_of_its_process,
        sets_of_any_size_exclude_each_other,
    );
    on_both!(copies:
        the_first_copy_of_an_acquire_that_was_sent_twice_grants_nothing_late,
        the_first_copy_of_an_acquire_that_was_given_up_grants_nothing_late,
        the_first_copy_of_an_acquire_grants_nothing_late_without_a_second_one,
    );
    on_both!(tables:
        an_unknown_parameter_of_the_url_is_refused_by_its_name,
        a_table_without_a_column_is_refused,
        a_table_of_a_later_version_is_refused,
        what_the_version_before_wrote_is_read,
        credentials_that_the_pool_is_given_later_are_those_of_all_connections,
    );
    on_one!("postgres", postgres:
        notices_are_sent_only_where_somebody_waits,
        every_isolation_of_the_database_will_do,
        a_replica_that_may_not_write_is_transient,
    );
    on_one!(first_missing(&["pgbouncer", "postgres"]), postgres:
        a_proxy_that_pools_by_transaction_will_do,
        behind_a_proxy_no_watch_waits_for_notices_that_do_not_come,
    );
    on_one!("mariadbd", mysql:
        a_deadlock_inside_an_acquire_is_no_error,
        what_passes_by_itself_is_transient,
        every_isolation_of_the_server_will_do,
        a_replica_that_may_not_write_is_transient,
    );
}
