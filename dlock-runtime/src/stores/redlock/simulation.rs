//! The protocol under random schedules: requests and answers that are late or lost, leases that end at
//! any time, nodes that restart empty or with an older state, clients whose clocks are hours off.
//!
//! The decisions are those of [`Round`](super::round::Round) and [`Win`](super::round::Win), the nodes are those of
//! [`model`](super::model). Only the network, the clocks and the engine's part are simulated. Each rule of the
//! protocol can be broken, to show that the schedules notice it.

mod check;
mod client;
mod network;
mod world;

use rand::RngExt;

use self::world::World;
use super::model::{Answer, Asker, Node, Renewed};

const MILLISECOND: u64 = 1_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const HOUR: u64 = 3_600 * SECOND;
const TTL: u64 = SECOND;
const VALIDITY: u64 = TTL - TTL / 100 - 2 * MILLISECOND;
const TOLERANCE: u64 = 60 * SECOND;
const QUARANTINE: u64 = 3 * TOLERANCE + SECOND / 2;
const BEGINNING: u64 = 1_700_000_000 * SECOND;

/// A rule that may be broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A token counts only once a majority has stored it.
    WriteBack,
    /// Only nodes whose answers were heard before the largest token was determined count for that.
    OnlyHeard,
    /// A node that may have forgotten something does not count.
    Quarantine,
    /// A node ignores a proposal that differs too much from its own clock.
    Tolerance,
}

/// When leases end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    /// When their ttl is over. Then there is one holder at a time, and tokens grow in the order of the holds.
    InTime,
    /// At any moment, as if processes and clocks stopped at the worst time. Then tokens grow from a hold to
    /// those that began after it, and between any two holds in the order in which a node that counts for
    /// both has granted them.
    AnyTime,
}

/// Runs one schedule. Returns how many holds counted, and the violation, if there was one.
fn run(seed: u64, broken: Option<Rule>, expiry: Expiry) -> (usize, Option<String>) {
    let mut world = World::new(seed, broken, expiry);
    let steps = world.rng.random_range(100..700);
    for _ in 0..steps {
        world.step();
    }
    (world.holds.len(), world.violation)
}

/// More schedules: `DLOCK_SCHEDULES=10000000 cargo test --release …`.
fn schedules() -> u64 {
    let wanted = std::env::var("DLOCK_SCHEDULES").ok();
    wanted.map_or(60_000, |wanted| wanted.parse().expect("a number of schedules"))
}

fn no_schedule_breaks_the_protocol(expiry: Expiry) {
    let schedules = schedules();
    let (mut counted, mut several) = (0, 0);
    for seed in 0..schedules {
        let (holds, violation) = run(seed, None, expiry);
        assert_eq!(violation, None, "schedule {seed}");
        counted += holds;
        several += u64::from(holds > 1);
    }
    println!("{schedules} schedules, {counted} holds, {several} schedules with more than one");
    // Schedules in which nothing happens prove nothing.
    assert!(several > schedules / 4);
}

/// A renewal restores the lock on a node that does not know of it, and the release ends it, before the acquire
/// arrives over another connection.
#[test]
fn an_acquire_that_its_renewal_and_release_overtook_is_not_granted() {
    let mut node = Node::new(1, 1);
    node.greet(0, true);
    let asker = |round| Asker { owner: 7, round, run: 1 };
    assert_eq!(node.renew(asker(2), TTL, 1), Renewed::Counts);
    assert!(node.release(asker(3), Some((TTL, false))));
    assert_eq!(node.acquire(asker(1), TTL, 1, 0), Answer::GivenUp);
}

#[test]
fn no_schedule_breaks_it_when_leases_end_in_time() {
    no_schedule_breaks_the_protocol(Expiry::InTime);
}

#[test]
fn no_schedule_breaks_it_when_leases_end_at_any_time() {
    no_schedule_breaks_the_protocol(Expiry::AnyTime);
}

/// Some schedule shows that the other rules are not enough.
fn it_breaks_without(rule: Rule) {
    let breaks = |seed: &u64| run(*seed, Some(rule), Expiry::AnyTime).1.is_some();
    let found = (0..100_000).find(breaks);
    assert!(found.is_some(), "100,000 schedules found nothing wrong without {rule:?}");
}

#[test]
fn without_the_write_back_it_breaks() {
    it_breaks_without(Rule::WriteBack);
}

#[test]
fn with_nodes_that_count_unheard_it_breaks() {
    it_breaks_without(Rule::OnlyHeard);
}

#[test]
fn with_emptied_nodes_that_count_it_breaks() {
    it_breaks_without(Rule::Quarantine);
}

#[test]
fn with_proposals_of_wild_clocks_it_breaks() {
    it_breaks_without(Rule::Tolerance);
}
