//! Programs of users. The simulation finds what is wrong with them, and does not accuse those that are right.

#[path = "user_bugs/mod.rs"]
mod user_bugs;

use std::time::{Duration, Instant};

use dlock_runtime::sim::{Explorer, Failure, FaultOptions, Summary};

/// For all programs that are wrong, together.
const BUDGET: Duration = Duration::from_secs(60);

/// How many schedules a program that is right has to pass.
const SCHEDULES: u64 = 2_000;

type Explore = fn(Explorer) -> Result<Summary, Box<Failure>>;

/// A scenario, and which faults there are in it.
type Program = (&'static str, FaultOptions, Explore);

macro_rules! programs {
    ($folder:ident: $($name:ident $faults:ident,)+) => {
        &[$((
            stringify!($name),
            FaultOptions::$faults(),
            |explorer| explorer.try_run(user_bugs::$folder::$name::scenario),
        )),+]
    };
}

/// Where it says `none`, the author expects that calls succeed.
const WRONG: &[Program] = programs! { wrong:
    cached_before_lock all,
    check_and_act_in_two_locks all,
    counter_in_process_memory all,
    fence_in_wrong_row all,
    goes_on_when_busy all,
    guard_dropped_early all,
    job_without_min_hold all,
    kept_after_loss all,
    key_lacks_tenant none,
    key_spelled_differently all,
    locks_in_crossed_order none,
    payment_repeated_after_loss all,
    permits_for_exclusion all,
    read_not_fenced all,
    shared_lock_for_write all,
    skipped_though_needed all,
    stock_read_before_lock all,
    ttl_shorter_than_work none,
    two_backends all,
    unlocked_before_commit all,
    work_spawned_out_of_lock all,
    write_without_token all,
};

const RIGHT: &[Program] = programs! { right:
    both_accounts_locked all,
    check_and_act_in_one_lock all,
    counter_in_the_store all,
    fenced_purchase all,
    finished_after_loss all,
    guard_until_the_end all,
    job_that_notes_its_day all,
    joined_work all,
    payment_with_idempotency_key all,
    readers_and_writers all,
};

#[test]
fn what_is_wrong_is_found() {
    let began = Instant::now();
    let mut missed = Vec::new();
    for (name, faults, explore) in WRONG {
        let began_one = Instant::now();
        let left = BUDGET.saturating_sub(began.elapsed());
        let explorer = Explorer::new(0..u64::MAX).faults(faults.clone()).time_limit(left);
        match explore(explorer) {
            Ok(summary) => {
                println!("{name:<32} MISSED in {summary}");
                missed.push(*name);
            }
            Err(failure) => print(name, &failure, began_one.elapsed()),
        }
    }
    let (programs, missed) = (WRONG.len(), missed.len());
    println!("{} of {programs} found in {:.1?}", programs - missed, began.elapsed());
    assert!(missed < 2, "{missed} of {programs} are not found");
}

fn print(name: &str, failure: &Failure, took: Duration) {
    let Failure { seed, message, faults, schedules, .. } = failure;
    assert!(!failure.diverged, "{name} is different when it is replayed:\n{failure}");
    let message = message.lines().next().unwrap_or_default();
    println!(
        "{name:<32} {schedules:>6} schedules {took:>8.1?}, {faults} faults, seed {seed}: {message}"
    );
    if std::env::var_os("SHOW").is_some() {
        println!("{failure}\n");
    }
}

#[test]
fn what_is_right_is_not_accused() {
    for (name, faults, explore) in RIGHT {
        match explore(Explorer::new(0..SCHEDULES).faults(faults.clone())) {
            Ok(summary) => println!("{name:<32} {summary}"),
            Err(failure) => panic!("{name}: {failure}"),
        }
    }
}
