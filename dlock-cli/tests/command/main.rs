//! The command `dlock` on real stores.

/// The same tests on three stores.
macro_rules! on_each {
    ($trials:ident, $module:ident: $($test:ident),* $(,)?) => { $(
        let test = crate::$module::$test::<crate::stores::OnSqlite>;
        $trials.add(concat!("sqlite_", stringify!($test)), test);
        let test = crate::$module::$test::<crate::stores::OnRedis>;
        $trials.needs("redis-server", concat!("redis_", stringify!($test)), test);
        let test = crate::$module::$test::<crate::stores::OnPostgres>;
        $trials.needs("postgres", concat!("postgres_", stringify!($test)), test);
    )* };
}

mod dlock;
mod endings;
mod looking;
mod losses;
mod measuring;
mod recording;
mod running;
mod stores;
mod terminals;
mod tmux;
mod watching;

use std::process::ExitCode;

use dlock_tests::trials::Trials;

use self::stores::{OnPostgres, OnRedis, OnZooKeeper};

fn main() -> ExitCode {
    let mut trials = Trials::default();
    trials.side_by_side(4);
    on_each!(trials, running:
        its_exit_code_is_passed_on,
        a_signal_that_kills_it_shows_in_the_exit_code,
        a_command_that_cannot_run_has_the_codes_of_a_shell,
        its_streams_are_untouched,
        no_descriptor_is_left_open,
        a_reader_that_goes_away_ends_it_by_a_signal,
        its_environment_has_the_key_and_a_growing_token,
        a_busy_lock_has_a_code_of_its_own,
        a_busy_lock_can_be_skipped,
        a_long_command_is_not_disturbed,
        it_waits_until_the_lock_is_free,
        it_waits_no_longer_than_it_may,
        shared_locks_are_held_together,
        permits_are_counted,
        a_lock_can_be_kept_for_a_while,
    );
    on_each!(trials, endings:
        a_signal_reaches_the_command,
        a_signal_reaches_its_children,
        a_stream_of_signals_does_not_keep_the_lease_from_the_command,
        a_signal_while_waiting_leaves_nothing_behind,
        what_it_leaves_running_ends_before_the_lock_is_free,
        what_ignores_the_end_is_killed,
        other_process_groups_end_too,
        a_hang_up_is_ignored_under_nohup,
        a_stopped_child_ends_too,
        the_lock_is_free_after_a_crash,
    );
    on_each!(trials, losses:
        a_revoked_lock_ends_the_command,
        a_command_that_ignores_the_loss_is_killed_in_time,
        a_stopped_dlock_does_not_keep_the_command_running,
        a_killed_dlock_does_not_leave_the_command_running,
        a_killed_supervisor_takes_the_command_with_it,
        the_command_ends_in_peace_although_its_supervisor_is_told_too,
    );
    on_each!(trials, looking:
        a_lock_that_is_held_is_shown,
        a_lock_can_be_released_by_force,
    );
    on_each!(trials, watching: two_samples_can_be_printed);
    watching::add(&mut trials);
    recording::add(&mut trials);
    measuring::add(&mut trials);
    trials.needs(
        "redis-server",
        "redis_a_killed_store_ends_the_command",
        losses::a_killed_store_ends_the_command::<OnRedis>,
    );
    trials.needs(
        "postgres",
        "postgres_a_killed_store_ends_the_command",
        losses::a_killed_store_ends_the_command::<OnPostgres>,
    );
    // Its proofs are much shorter than a ttl.
    macro_rules! on_zookeeper {
        ($module:ident: $($test:ident),* $(,)?) => { $(
            let name = concat!("zookeeper_", stringify!($test));
            trials.needs("java", name, $module::$test::<OnZooKeeper>);
        )* };
    }
    on_zookeeper!(running: its_exit_code_is_passed_on, a_long_command_is_not_disturbed);
    on_zookeeper!(losses:
        a_revoked_lock_ends_the_command,
        a_command_that_ignores_the_loss_is_killed_in_time,
        a_killed_dlock_does_not_leave_the_command_running,
    );
    let missing = dlock_tests::servers::first_missing(&["redis-server", "postgres", "mariadbd"]);
    let test = looking::a_danger_is_found_and_has_a_code;
    trials.needs(missing, "a_danger_is_found_and_has_a_code", test);
    macro_rules! once {
        ($module:ident: $($test:ident),* $(,)?) => { $(
            trials.add(stringify!($test), $module::$test);
        )* };
    }
    once!(terminals:
        the_command_has_the_terminal,
        it_runs_as_the_first_process_of_a_container,
    );
    once!(looking:
        wrong_use_has_one_clear_line,
        a_password_is_never_shown,
        the_store_can_come_from_a_file_or_a_configuration,
        health_is_a_line_and_a_code,
        completions_and_the_manual_page_are_printed,
    );
    trials.run()
}
