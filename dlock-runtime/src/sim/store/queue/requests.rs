//! What the host does at a request.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Entry, Lease, Position, Revision, State, Watched};
use crate::backend::{Claim, Holder, LockState};
use crate::key::LockKey;
use crate::lock_table::record::micros;
use crate::owner::OwnerId;
use crate::sim::Nanos;
use crate::sim::calls::WatchId;
use crate::sim::host::Visit;

/// When an entry is put into its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// If it is not there.
    Missing,
    /// If nobody is there.
    Empty,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It is there, under this lease.
    In(Own),
    /// Others are there, so it was not put.
    Out,
    /// It is there under another lease.
    Otherwise,
    /// The lease has ended, so it was not put.
    NoLease,
}

/// A claim's own entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) revision: Revision,
    pub(super) is_first: bool,
}

/// What a claim finds ahead of its entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// Whether it may enter. If not, the host will notify it.
    pub(super) is_admitted: bool,
    pub(super) other_permits: Option<NonZeroU32>,
}

impl State {
    /// The answer is false if a lease with this id exists.
    pub(super) fn grant(&mut self, id: i64, ttl: Duration, visit: &mut Visit) -> bool {
        self.enter(visit);
        if self.leases.contains_key(&id) {
            return false;
        }
        let ttl = micros(ttl);
        self.leases.insert(id, Lease { ttl, ends: visit.steady + ttl });
        true
    }

    /// The answer is false if the lease has ended.
    pub(super) fn keep_alive(&mut self, id: i64, visit: &mut Visit) -> bool {
        self.enter(visit);
        let now = visit.steady;
        self.leases.get_mut(&id).map(|lease| lease.ends = now + lease.ttl).is_some()
    }

    /// Ends a lease, with all that is under it.
    pub(super) fn revoke_lease(&mut self, id: i64, visit: &mut Visit) {
        self.enter(visit);
        for (key, gone) in self.end_lease(id, visit.true_time) {
            self.notify(&key, gone, visit);
        }
    }

    pub(super) fn put(
        &mut self,
        claim: &Claim,
        lease: i64,
        when: When,
        visit: &mut Visit,
    ) -> Entered {
        self.enter(visit);
        let queue = self.queues.entry(claim.key.clone()).or_default();
        let head = queue.first().map(|entry| entry.revision);
        if let Some(own) = queue.iter().find(|entry| entry.owner == claim.owner) {
            let is_first = head == Some(own.revision);
            let is_under = own.lease == lease;
            let revision = own.revision;
            return if is_under {
                Entered::In(Own { revision, is_first })
            } else {
                Entered::Otherwise
            };
        }
        if when == When::Empty && head.is_some() {
            return Entered::Out;
        }
        if !self.leases.contains_key(&lease) {
            return Entered::NoLease;
        }
        self.revision += 1;
        let revision = self.revision;
        queue.push(Entry {
            owner: claim.owner,
            mode: claim.mode,
            revision,
            lease,
            client_info: claim.client_info.clone(),
            is_kept: false,
            is_revoked: false,
        });
        self.occupancy.note(&claim.key, claim.owner, Nanos::MAX);
        Entered::In(Own { revision, is_first: head.is_none() })
    }

    /// Looks at what is ahead of an entry. If it has to wait and there is a watch, that is notified of the change that
    /// it waits for.
    pub(super) fn look_ahead(
        &mut self,
        claim: &Claim,
        own: Revision,
        watch: Option<WatchId>,
        visit: &mut Visit,
    ) -> Ahead {
        self.enter(visit);
        let other_permits =
            claim.mode.other_permits(self.ahead(&claim.key, own).iter().map(|(_, mode)| *mode));
        let awaited = match self.position(&claim.key, own, claim.mode) {
            Position::Admitted => return Ahead { is_admitted: true, other_permits },
            Position::Behind(blocker) => Some(blocker),
            Position::Crowded => None,
        };
        if let Some(watch) = watch {
            self.watches.retain(|watched| watched.own != own);
            let (key, process) = (claim.key.clone(), visit.from);
            self.watches.push(Watched { key, own, awaited, process, watch });
        }
        Ahead { is_admitted: false, other_permits }
    }

    /// Whether the claim's entry exists as the claim put it, under this lease.
    pub(super) fn is_there(&mut self, claim: &Claim, lease: i64, visit: &mut Visit) -> bool {
        self.enter(visit);
        let entry = self.entry(&claim.key, claim.owner);
        entry.is_some_and(|entry| !entry.is_revoked && entry.lease == lease)
    }

    /// Deletes the claim's entry, if it is under this lease. If no lease is named, any will do.
    pub(super) fn leave(&mut self, claim: &Claim, lease: Option<i64>, visit: &mut Visit) -> bool {
        self.enter(visit);
        let Some(entry) = self.entry(&claim.key, claim.owner) else { return false };
        if entry.is_revoked || lease.is_some_and(|lease| entry.lease != lease) {
            return false;
        }
        let revision = entry.revision;
        self.delete(&claim.key, revision, visit);
        true
    }

    /// Deletes the claim's entry, if it was revoked.
    pub(super) fn leave_revoked(&mut self, claim: &Claim, visit: &mut Visit) -> bool {
        self.enter(visit);
        let entry = self.entry(&claim.key, claim.owner).filter(|entry| entry.is_revoked);
        let Some(revision) = entry.map(|entry| entry.revision) else { return false };
        self.delete(&claim.key, revision, visit);
        true
    }

    /// Keeps the claim's entry without an owner, under another lease.
    pub(super) fn keep_for(&mut self, claim: &Claim, lease: i64, visit: &mut Visit) -> bool {
        self.enter(visit);
        let exists = self.leases.contains_key(&lease);
        let entry = self.entry(&claim.key, claim.owner);
        let Some(entry) = entry.filter(|entry| exists && !entry.is_revoked) else { return false };
        entry.is_kept = true;
        entry.lease = lease;
        true
    }

    pub(super) fn inspect(&mut self, key: &LockKey, visit: &mut Visit) -> Option<Holder> {
        self.enter(visit);
        let first = self.queues.get(key)?.first()?;
        Some(self.holder(first, visit.steady))
    }

    pub(super) fn list(&mut self, prefix: &str, visit: &mut Visit) -> Vec<LockState> {
        self.enter(visit);
        let keys = self.queues.keys().filter(|key| key.as_str().starts_with(prefix));
        let states = keys.map(|key| self.state_of(key, visit.steady));
        states.filter(|state| !state.is_idle()).collect()
    }

    /// Marks the holders' entries, so that they are not renewed.
    pub(super) fn revoke(&mut self, key: &LockKey, visit: &mut Visit) -> bool {
        self.enter(visit);
        let holding = self.holding(key);
        let entries = self.queues.get_mut(key).into_iter().flatten();
        let held = entries.filter(|entry| holding.contains(&entry.revision) && !entry.is_kept);
        held.map(|entry| entry.is_revoked = true).count() > 0
    }

    pub(super) fn force_release(&mut self, key: &LockKey, visit: &mut Visit) -> bool {
        self.enter(visit);
        let holding = self.holding(key);
        for revision in &holding {
            self.delete(key, *revision, visit);
        }
        !holding.is_empty()
    }

    /// The lease of an entry, for a claim that was acquired over another connection.
    pub(super) fn lease_of(
        &mut self,
        key: &LockKey,
        owner: OwnerId,
        visit: &mut Visit,
    ) -> Option<i64> {
        self.enter(visit);
        self.entry(key, owner).map(|entry| entry.lease)
    }
}
