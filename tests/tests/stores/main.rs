//! Each store on real servers, and what all stores have in common.

mod blame;
mod databases;
#[cfg(feature = "etcd")]
mod etcd;
mod fencing;
mod hand_over;
mod processes;
mod redis;
mod redis_forms;
mod redlock;
mod redlock_model;
mod roles;
mod same_rules;
mod servers;
mod steps;
mod stored_forms;
mod zookeeper;

use std::process::ExitCode;

use dlock_tests::trials::Trials;

fn main() -> ExitCode {
    dlock_tests::logs::install();
    let mut trials = Trials::default();
    trials.side_by_side(4);
    trials.module("blame", blame::add);
    trials.module("databases", databases::add);
    #[cfg(feature = "etcd")]
    trials.module("etcd", etcd::add);
    trials.module("fencing", fencing::add);
    trials.module("hand_over", hand_over::add);
    trials.module("processes", processes::add);
    trials.module("redis", redis::add);
    trials.module("redis_forms", redis_forms::add);
    trials.module("redlock", redlock::add);
    trials.module("redlock_model", redlock_model::add);
    trials.module("roles", roles::add);
    trials.module("same_rules", same_rules::add);
    trials.module("servers", servers::add);
    trials.module("stored_forms", stored_forms::add);
    trials.module("zookeeper", zookeeper::add);
    trials.run()
}
