//! The fewest faults with which a schedule still fails.

use std::collections::BTreeSet;

use super::explore::Failure;
use super::faults::Allowed;
use super::schedule::{self, Ended, PLACE, Scenario, Settings};

/// How many schedules are run to find out which faults matter.
const TRIES: usize = 400;

/// Replays a schedule that failed, finds out which of its faults it takes, and records that.
pub(super) fn shrink(
    seed: u64,
    failed: &Ended,
    settings: &Settings,
    scenario: &Scenario,
) -> Failure {
    let run = |allowed: Allowed, records| schedule::run(seed, settings, allowed, records, scenario);
    let replay = run(Allowed::All, false);
    let diverged = replay.hash != failed.hash || replay.violation != failed.violation;
    let few = fewest(failed.faults.clone(), |these| {
        let ended = run(Allowed::Only(these.clone()), false);
        is_same(ended.violation.as_deref(), failed.violation.as_deref())
    });
    let faults = few.len();
    let mut shown = run(Allowed::Only(few), true);
    if !is_same(shown.violation.as_deref(), failed.violation.as_deref()) {
        shown = run(Allowed::All, true);
    }
    let message = shown.violation.or_else(|| failed.violation.clone()).unwrap_or_default();
    Failure { seed, message, timeline: shown.timeline, faults, schedules: 0, diverged }
}

/// Whether two schedules fail at the same place of the program.
fn is_same(one: Option<&str>, other: Option<&str>) -> bool {
    one.is_some() && one.map(place) == other.map(place)
}

/// Where the violation was a panic. Empty for other violations.
fn place(violation: &str) -> &str {
    violation.rsplit_once(PLACE).map_or("", |(_, place)| place)
}

/// Leaves out parts, large ones first, as long as the rest fails. This is delta debugging (Zeller and Hildebrandt,
/// *Simplifying and Isolating Failure-Inducing Input*, 2002) without its complements.
fn fewest(all: BTreeSet<u32>, fails: impl Fn(&BTreeSet<u32>) -> bool) -> BTreeSet<u32> {
    let mut rest: Vec<u32> = all.into_iter().collect();
    let mut tries = 0;
    let mut size = rest.len();
    while size > 0 {
        let mut start = 0;
        while start < rest.len() && tries < TRIES {
            let end = (start + size).min(rest.len());
            let others: Vec<u32> = rest[..start].iter().chain(&rest[end..]).copied().collect();
            tries += 1;
            if fails(&others.iter().copied().collect()) {
                rest = others;
            } else {
                start = end;
            }
        }
        size /= 2;
    }
    rest.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_faults_that_matter_are_left() {
        let needed = BTreeSet::from([3, 17, 18]);
        let few = fewest((0..40).collect(), |these| needed.is_subset(these));
        assert_eq!(few, needed);
        assert!(fewest((0..40).collect(), |_| true).is_empty());
    }
}
