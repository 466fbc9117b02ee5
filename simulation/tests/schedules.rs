//! dlock keeps its promises in random schedules, and each schedule is the same whenever it is run.

use std::ops::Range;

use dlock_runtime::sim::Explorer;
use dlock_simulation::late_renewals::late_renewals;
use dlock_simulation::lost_holds::lost_holds;
use dlock_simulation::passing::passing;
use dlock_simulation::programs;
use dlock_simulation::waiting_sets::waiting_sets;

/// How many schedules of each program every test run tries, 24,000 in all.
const SCHEDULES: u64 = 3_000;

fn explorer(seeds: Range<u64>) -> Explorer {
    Explorer::new(seeds).without_tokio_timers()
}

/// Runs the schedules of one program. Each has at least 200 steps, and five processes or more.
macro_rules! promises_hold {
    ($($name:ident: $program:path;)+) => {
        $(
            #[test]
            fn $name() {
                let summary = explorer(0..SCHEDULES).run($program);
                println!("{summary}");
                assert!(summary.fewest_steps >= 200, "{summary:?}");
            }
        )+
    };
}

promises_hold! {
    promises_hold_on_leases: programs::on_leases;
    promises_hold_in_a_line: programs::on_leases_with_a_line;
    promises_hold_in_a_queue: programs::on_queue;
    promises_hold_on_sessions: programs::on_sessions;
    promises_hold_on_a_majority: programs::on_majority;
    late_renewals_revive_nothing: late_renewals;
    a_lost_hold_leaves_nothing_behind: lost_holds;
    a_set_that_waits_keeps_no_free_key: waiting_sets;
    a_lease_belongs_to_one_task_at_a_time: passing;
}

#[test]
fn the_same_seed_gives_the_same_trace_a_thousand_times() {
    let hash = |seed| explorer(seed..seed + 1).threads(1).run(programs::on_leases).hash;
    let first = hash(7);
    for _ in 0..1_000 {
        assert_eq!(hash(7), first);
    }
    assert_ne!(hash(8), first);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let hash = |threads| explorer(0..200).threads(threads).run(programs::on_majority).hash;
    assert_eq!(hash(1), hash(4));
}
