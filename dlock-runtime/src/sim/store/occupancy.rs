//! Who had a key or waited for it, and until when, in true time: for the checks of scenarios.

use std::collections::BTreeMap;

use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::sim::Nanos;

/// Whom a store has known, by key.
#[derive(Debug, Default)]
pub(super) struct Occupancy(BTreeMap<LockKey, Vec<Seen>>);

#[derive(Debug)]
struct Seen {
    owner: OwnerId,
    /// The end of time as long as it is there.
    until: Nanos,
}

impl Occupancy {
    /// Notes that a claim has the key, or waits for it, until this moment.
    pub(super) fn note(&mut self, key: &LockKey, owner: OwnerId, until: Nanos) {
        let all = self.0.entry(key.clone()).or_default();
        match all.iter_mut().rev().find(|seen| seen.owner == owner) {
            Some(seen) => seen.until = until,
            None => all.push(Seen { owner, until }),
        }
    }

    /// Whether a claim had the key or waited for it at this moment or later, so that others found it busy. Of the claims of
    /// one process, one can be in the way of another.
    pub(super) fn was(&self, key: &LockKey, since: Nanos) -> bool {
        self.0.get(key).is_some_and(|all| all.iter().any(|seen| seen.until >= since))
    }
}
