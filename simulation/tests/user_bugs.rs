//! Programs of users. The simulation finds what is wrong with them, and does not accuse those that are right.

#[path = "user_bugs/mod.rs"]
mod user_bugs;

use std::time::{Duration, Instant};

use dlock_runtime::sim::{Explorer, Failure, FaultOptions, Summary};

/// Within how many schedules a program that is wrong has to be found. A number, not a time, so that a slow machine finds
/// the same ones.
const SEARCHED: u64 = 10_000;

/// How many schedules a program that is right has to pass.
const SCHEDULES: u64 = 2_000;

type Explore = fn(Explorer) -> Result<Summary, Box<Failure>>;

/// A scenario, which faults there are in it, and whether it uses timers of tokio.
struct Program {
    name: &'static str,
    faults: FaultOptions,
    timers: Timers,
    explore: Explore,
}

#[derive(Clone, Copy)]
enum Timers {
    Tokio,
    Sim,
}

impl Program {
    fn explore(&self, explorer: Explorer) -> Result<Summary, Box<Failure>> {
        let explorer = explorer.faults(self.faults.clone());
        (self.explore)(match self.timers {
            Timers::Tokio => explorer,
            Timers::Sim => explorer.without_tokio_timers(),
        })
    }
}

macro_rules! programs {
    ($folder:ident: $($name:ident $faults:ident $timers:ident,)+) => {
        &[$(Program {
            name: stringify!($name),
            faults: FaultOptions::$faults(),
            timers: Timers::$timers,
            explore: |explorer| explorer.try_run(user_bugs::$folder::$name::scenario),
        }),+]
    };
}

/// Where it says `none`, the author expects that calls succeed.
const WRONG: &[Program] = programs! { wrong:
    cached_before_lock all Sim,
    check_and_act_in_two_locks all Sim,
    counter_in_process_memory all Sim,
    fence_in_wrong_row all Sim,
    goes_on_when_busy all Sim,
    guard_dropped_early all Sim,
    job_without_min_hold all Tokio,
    kept_after_loss all Tokio,
    key_lacks_tenant none Sim,
    key_spelled_differently all Sim,
    locks_in_crossed_order none Sim,
    payment_repeated_after_loss all Sim,
    permits_for_exclusion all Sim,
    read_not_fenced all Sim,
    shared_lock_for_write all Sim,
    skipped_though_needed all Sim,
    stock_read_before_lock all Sim,
    ttl_shorter_than_work none Tokio,
    two_backends all Sim,
    unlocked_before_commit all Sim,
    work_spawned_out_of_lock all Sim,
    write_without_token all Sim,
};

const RIGHT: &[Program] = programs! { right:
    both_accounts_locked all Sim,
    check_and_act_in_one_lock all Sim,
    counter_in_the_store all Sim,
    fenced_purchase all Sim,
    finished_after_loss all Sim,
    guard_until_the_end all Sim,
    job_that_notes_its_day all Tokio,
    joined_work all Sim,
    payment_with_idempotency_key all Sim,
    readers_and_writers all Sim,
};

#[test]
fn what_is_wrong_is_found() {
    let began = Instant::now();
    let mut found = 0;
    for program in WRONG {
        let (name, began_one) = (program.name, Instant::now());
        match program.explore(Explorer::new(0..SEARCHED)) {
            Ok(summary) => println!("{name:<28} MISSED in {summary}"),
            Err(failure) => {
                found += 1;
                print(name, &failure, began_one.elapsed());
            }
        }
    }
    println!("{found} of {} found in {:.1?}", WRONG.len(), began.elapsed());
    assert!(found + 1 >= WRONG.len(), "{found} of {} are found", WRONG.len());
}

fn print(name: &str, failure: &Failure, took: Duration) {
    let Failure { message, faults, schedules, diverged, .. } = failure;
    assert!(!diverged, "{name} is different when it is replayed:\n{failure}");
    let message = message.lines().next().unwrap_or_default();
    println!("{name:<28} {schedules:>5} schedules {took:>7.1?} {faults:>2} faults  {message}");
}

#[test]
fn what_is_right_is_not_accused() {
    for program in RIGHT {
        match program.explore(Explorer::new(0..SCHEDULES)) {
            Ok(summary) => println!("{:<28} {summary}", program.name),
            Err(failure) => panic!("{}: {failure}", program.name),
        }
    }
}
