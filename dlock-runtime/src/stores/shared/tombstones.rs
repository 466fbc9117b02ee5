//! Abandoned claims: a late acquire of such a claim is not granted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{Capabilities, Claim};
use crate::owner::OwnerId;

/// How much longer than its ttl an abandoned claim is remembered.
const LATE: Duration = Duration::from_mins(1);

/// Tombstones in this process, for stores that never execute an acquire after the release that ended it (because
/// requests run in order, or name a round or a lease that is over). There, only a new request of the same claim
/// could still be granted.
#[derive(Debug, Default)]
pub(crate) struct Tombstones(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    until: HashMap<OwnerId, Instant>,
    sweep_at: usize,
}

impl Tombstones {
    const SMALLEST: usize = 64;

    /// Leaves a tombstone: from now on this claim is not granted.
    pub(crate) fn note(&self, claim: &Claim) {
        let now = Instant::now();
        let ttl = claim.ttl.min(Capabilities::LEASES.max_ttl);
        let mut table = self.table();
        // Swept whenever it has doubled, so that at most half of it has expired.
        if table.until.len() >= table.sweep_at.max(Self::SMALLEST) {
            table.until.retain(|_, until| *until > now);
            table.sweep_at = table.until.len() * 2;
        }
        table.until.insert(claim.owner, now + ttl + LATE);
    }

    /// Was this claim abandoned?
    pub(crate) fn has(&self, claim: &Claim) -> bool {
        self.table().until.get(&claim.owner).is_some_and(|until| *until > Instant::now())
    }

    /// The position of the first abandoned claim, if any.
    pub(crate) fn first_of(&self, claims: &[Claim]) -> Option<usize> {
        claims.iter().position(|claim| self.has(claim))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim::new("k".into(), Duration::from_secs(5))
    }

    #[tokio::test(start_paused = true)]
    async fn a_tombstone_outlives_the_ttl_but_not_forever() {
        let (tombstones, claim, other) = (Tombstones::default(), claim(), claim());
        tombstones.note(&claim);
        assert!(tombstones.has(&claim) && !tombstones.has(&other));
        assert_eq!(tombstones.first_of(&[other, claim.clone()]), Some(1));
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(tombstones.has(&claim));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!tombstones.has(&claim));
    }

    #[tokio::test(start_paused = true)]
    async fn expired_tombstones_do_not_pile_up() {
        let tombstones = Tombstones::default();
        for _ in 0..1_000 {
            tombstones.note(&claim());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let remembered = tombstones.table().until.len();
        assert!(remembered <= 200, "{remembered} are remembered");
    }
}
