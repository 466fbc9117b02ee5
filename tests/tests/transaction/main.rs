//! Row locks in the caller's own transaction, on real PostgreSQL and MariaDB servers.
//!
//! A test about a mistake that plain SQL allows makes that mistake first.

mod attribute;
mod both;
mod facts;
mod hung;
mod mysql;
mod postgres;
mod sent;
mod tokens;

use std::process::ExitCode;

use dlock_tests::servers::{MariaDbServer, PostgresServer};
use dlock_tests::trials::Trials;
use sqlx::{MySql, Postgres};

macro_rules! in_full {
    ($trials:ident, $program:literal, $module:ident: $($test:ident),* $(,)?) => { $(
        $trials.needs($program, stringify!($test), $module::$test);
    )* };
}

fn main() -> ExitCode {
    sent::listen();
    let mut trials = Trials::default();
    trials.side_by_side(4);
    macro_rules! on_both {
        ($($test:ident),* $(,)?) => { $(
            trials.needs("postgres", concat!("postgres_", stringify!($test)), || async {
                let server = PostgresServer::start();
                both::$test::<Postgres>(&postgres::pool(&server, 16).await).await;
            });
            trials.needs("mariadbd", concat!("mysql_", stringify!($test)), || async {
                let server = MariaDbServer::start();
                both::$test::<MySql>(&mysql::pool(&server, 16).await).await;
            });
        )* };
    }
    macro_rules! on_one {
        ($program:literal, $database:ident: $($test:ident),* $(,)?) => { $(
            let name = concat!(stringify!($database), "_", stringify!($test));
            trials.needs($program, name, $database::$test);
        )* };
    }
    on_both!(
        a_transaction_excludes_another_until_it_commits,
        a_rollback_releases_the_lock,
        a_lost_connection_releases_the_lock,
        tokens_grow_with_every_lock,
        tokens_grow_with_every_rollback,
        a_transaction_may_lock_twice,
        no_update_is_lost,
        a_wait_ends_in_time,
        a_wait_among_many_holders_ends_in_time,
        several_keys_in_any_order_do_not_deadlock,
        a_deadlock_is_a_transient_error,
        a_connection_without_a_transaction_is_refused,
        a_begin_that_sqlx_did_not_see_is_refused,
        an_invalid_key_is_refused_before_anything_is_sent,
        a_call_is_two_round_trips,
        readers_share_and_exclude_a_writer,
        a_readers_token_exceeds_that_of_a_rolled_back_writer,
        a_waiting_writer_precedes_later_readers,
    );
    trials.needs("postgres", "postgres_it_locks_in_the_transaction", || async {
        let server = PostgresServer::start();
        attribute::it_locks_in_the_transaction(&postgres::pool(&server, 8).await).await;
    });
    trials.needs("mariadbd", "mysql_it_locks_in_the_transaction", || async {
        let server = MariaDbServer::start();
        attribute::it_locks_in_the_transaction(&mysql::pool(&server, 8).await).await;
    });
    on_one!("postgres", attribute:
        every_shape_of_function_can_be_locked,
        a_busy_lock_runs_no_body,
        it_is_lazy_and_fails_closed,
        the_future_stays_small,
        sites_know_their_form,
    );
    on_one!("postgres", postgres:
        a_busy_lock_keeps_the_earlier_writes,
        no_setting_outlives_the_call,
        a_snapshot_is_refused,
        a_rollback_to_a_savepoint_releases_its_locks,
        several_keys_are_all_or_none,
        nothing_is_left_behind,
        a_missing_table_is_reported,
        the_documented_privileges_are_enough,
        one_connection_is_enough,
    );
    on_one!("mariadbd", mysql:
        a_busy_lock_keeps_the_earlier_writes,
        a_busy_lock_keeps_earlier_writes_even_if_timeouts_roll_back,
        no_setting_outlives_the_call,
        a_snapshot_is_refused,
        a_snapshot_of_one_transaction_is_refused,
        unused_rows_are_deleted,
        a_missing_table_is_reported,
        the_documented_privileges_are_enough,
        one_connection_is_enough,
    );
    add_tokens(&mut trials);
    add_hung(&mut trials);
    trials.run()
}

fn add_tokens(trials: &mut Trials) {
    trials.needs("postgres", "postgres_tokens_are_the_time_or_more", || async {
        let server = PostgresServer::start();
        tokens::tokens_are_the_time_or_more(&postgres::pool(&server, 2).await).await;
    });
    trials.needs("mariadbd", "mysql_tokens_are_the_time_or_more", || async {
        let server = MariaDbServer::start();
        tokens::tokens_are_the_time_or_more(&mysql::pool(&server, 2).await).await;
    });
    in_full!(trials, "postgres", tokens:
        postgres_tokens_grow_over_a_crash,
        postgres_tokens_grow_when_the_clock_is_set_back,
        postgres_every_token_is_remembered,
        postgres_the_sequence_is_raised_by_one_at_a_time,
        postgres_tokens_grow_beside_an_older_process,
    );
    in_full!(trials, "mariadbd", tokens:
        mysql_tokens_grow_over_a_crash,
        mysql_a_token_is_drawn_after_the_wait,
        mysql_a_token_is_drawn_after_the_wait_of_an_insertion,
    );
}

fn add_hung(trials: &mut Trials) {
    in_full!(trials, "postgres", hung:
        postgres_a_server_that_freezes_during_the_wait_is_reported,
        postgres_a_frozen_server_is_reported,
        postgres_an_abandoned_call_frees_its_connection,
        postgres_a_client_that_vanishes_leaves_no_statement,
        postgres_a_slow_server_is_not_a_busy_lock,
        postgres_a_server_that_hangs_after_a_busy_lock_is_reported,
        postgres_an_unreported_grant_ends_with_its_transaction,
    );
    in_full!(trials, "mariadbd", hung:
        mysql_a_server_that_freezes_during_the_wait_is_reported,
        mysql_a_frozen_server_is_reported,
        mysql_an_abandoned_call_frees_its_connection,
        mysql_a_client_that_vanishes_leaves_no_statement,
        mysql_a_slow_server_is_not_a_busy_lock,
        mysql_an_unreported_grant_ends_with_its_transaction,
    );
}
