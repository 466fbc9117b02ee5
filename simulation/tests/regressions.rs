//! Seeds that once showed a defect. Each shows it again when the mistake of that name is planted
//! (`simulation/planted`), as long as the simulator stays the same.

use dlock_runtime::sim::Explorer;
use dlock_simulation::late_renewals::late_renewals;
use dlock_simulation::lost_holds::lost_holds;
use dlock_simulation::programs;

macro_rules! seeds {
    ($($name:ident: $program:path, $seed:literal;)+) => {
        $(
            #[test]
            fn $name() {
                Explorer::new($seed..$seed + 1).without_tokio_timers().run($program);
            }
        )+
    };
}

seeds! {
    a_set_forgets_its_queue_position: programs::on_leases, 314;
    a_lost_hold_in_doubt_is_released_too_briefly: lost_holds, 4_849;
    a_release_ends_before_the_session: programs::on_sessions, 19;
    a_late_renewal_revives_a_proof: late_renewals, 699;
    a_follower_forgets_the_sessions_that_connect_to_it: programs::on_sessions, 179_020;
}
