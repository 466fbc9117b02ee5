//! What the ensemble does at a request of a session.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Entry, Position, Session, SessionId, Stamp, State, Watched, Zxid};
use crate::backend::{Claim, Holder, LockState, Waiter};
use crate::key::LockKey;
use crate::lock_table::queue::holders;
use crate::owner::OwnerId;
use crate::sim::Nanos;
use crate::sim::calls::WatchId;
use crate::sim::host::Visit;
use crate::token::FencingToken;

/// Why the ensemble refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The session has ended.
    Expired,
    /// A later request of the session came first.
    Overtaken,
}

/// What a claim finds ahead of its entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Whether its own entry is there.
    pub(super) is_there: bool,
    /// Whether it may enter. If not, the host will notify it.
    pub(super) is_admitted: bool,
    pub(super) other_permits: Option<NonZeroU32>,
}

impl State {
    /// Creates a session.
    pub(super) fn connect(&mut self, visit: &mut Visit) -> SessionId {
        self.enter(visit);
        self.zxid += 1;
        let ends = visit.steady + self.timeout;
        self.sessions.insert(self.zxid, Session { ends, used: None, last: 0, epoch: visit.epoch });
        self.zxid
    }

    /// Any request of a session is a sign of life, of which the leader learns later.
    pub(super) fn ping(&mut self, stamp: Stamp, visit: &mut Visit) -> Result<(), Refused> {
        self.enter(visit);
        let session = self.sessions.get_mut(&stamp.session).ok_or(Refused::Expired)?;
        if stamp.number <= session.last {
            return Err(Refused::Overtaken);
        }
        session.last = stamp.number;
        session.used = Some(visit.steady);
        if session.epoch != visit.epoch {
            // The process connects to the new run of the follower, which asks the leader.
            session.epoch = visit.epoch;
            session.ends = session.ends.max(visit.steady + self.timeout);
        }
        Ok(())
    }

    /// Creates the claim's entry, if it has none in this session. Answers its position, and what is ahead.
    pub(super) fn create(
        &mut self,
        stamp: Stamp,
        claim: &Claim,
        watch: Option<WatchId>,
        visit: &mut Visit,
    ) -> Result<(Zxid, View), Refused> {
        self.ping(stamp, visit)?;
        let queue = self.queues.entry(claim.key.clone()).or_default();
        let mut own = queue
            .iter()
            .filter(|entry| entry.owner == claim.owner && entry.session == stamp.session);
        let zxid = if let Some(own) = own.next() {
            own.zxid
        } else {
            self.zxid += 1;
            queue.push(Entry {
                owner: claim.owner,
                mode: claim.mode,
                zxid: self.zxid,
                session: stamp.session,
                client_info: claim.client_info.clone(),
                is_revoked: false,
            });
            self.occupancy.note(&claim.key, claim.owner, Nanos::MAX);
            self.zxid
        };
        Ok((zxid, self.view(claim, zxid, watch, visit)))
    }

    /// Reads what is ahead of an entry.
    pub(super) fn look(
        &mut self,
        stamp: Stamp,
        claim: &Claim,
        own: Zxid,
        watch: Option<WatchId>,
        visit: &mut Visit,
    ) -> Result<View, Refused> {
        self.ping(stamp, visit)?;
        Ok(self.view(claim, own, watch, visit))
    }

    /// What is ahead of an entry. If it has to wait and there is a watch, that is notified of the change that it waits
    /// for.
    fn view(&mut self, claim: &Claim, own: Zxid, watch: Option<WatchId>, visit: &Visit) -> View {
        let queue = self.queues.get(&claim.key);
        let is_there = queue.is_some_and(|queue| queue.iter().any(|entry| entry.zxid == own));
        let ahead = self.ahead(&claim.key, own);
        let other_permits = claim.mode.other_permits(ahead.iter().map(|(_, mode)| *mode));
        let awaited = match self.position(&claim.key, own, claim.mode) {
            Position::Admitted => return View { is_there, is_admitted: true, other_permits },
            Position::Behind(blocker) => Some(blocker),
            Position::Crowded => None,
        };
        if let Some(watch) = watch {
            self.watches.retain(|watched| watched.own != own);
            let (key, process) = (claim.key.clone(), visit.from);
            self.watches.push(Watched { key, own, awaited, process, watch });
        }
        View { is_there, is_admitted: false, other_permits }
    }

    /// A transaction that checks that an entry exists unchanged.
    pub(super) fn check(
        &mut self,
        stamp: Stamp,
        key: &LockKey,
        own: Zxid,
        visit: &mut Visit,
    ) -> Result<bool, Refused> {
        self.ping(stamp, visit)?;
        let mut queue = self.queues.get(key).into_iter().flatten();
        Ok(queue.any(|entry| entry.zxid == own && !entry.is_revoked))
    }

    /// Deletes an owner's entries.
    pub(super) fn remove(
        &mut self,
        stamp: Stamp,
        key: &LockKey,
        owner: OwnerId,
        visit: &mut Visit,
    ) -> Result<bool, Refused> {
        self.ping(stamp, visit)?;
        let queue = self.queues.get(key).into_iter().flatten();
        let own: Vec<_> =
            queue.filter(|entry| entry.owner == owner).map(|entry| entry.zxid).collect();
        for zxid in &own {
            self.delete(key, *zxid, visit);
        }
        Ok(!own.is_empty())
    }

    /// The revisions of the holders of a key.
    fn holding(&self, key: &LockKey) -> Vec<Zxid> {
        let queue = self.queues.get(key).into_iter().flatten();
        holders(queue.map(|entry| (entry.zxid, entry.mode)).collect())
    }

    pub(super) fn list(&mut self, prefix: &str, visit: &mut Visit) -> Vec<LockState> {
        self.enter(visit);
        let keys = self.queues.keys().filter(|key| key.as_str().starts_with(prefix));
        let states = keys.map(|key| self.state_of(key));
        states.filter(|state| !state.is_idle()).collect()
    }

    fn state_of(&self, key: &LockKey) -> LockState {
        let holding = self.holding(key).len();
        let queue = self.queues.get(key).map_or(&[][..], Vec::as_slice);
        let (holding, waiting) = queue.split_at(holding);
        let timeout = Duration::from_micros(self.timeout);
        let holders = holding.iter().map(|entry| {
            Holder::new(Some(entry.owner), FencingToken::new(entry.zxid), timeout)
                .with_mode(entry.mode)
                .with_client_info(Some(entry.client_info.clone()))
                .with_revoked(entry.is_revoked)
        });
        let waiters = waiting.iter().map(|entry| {
            Waiter::new(Some(entry.owner), entry.mode, Some(entry.client_info.clone()))
        });
        LockState::new(key.clone(), holders.collect(), waiters.collect())
    }

    pub(super) fn revoke(&mut self, key: &LockKey, visit: &mut Visit) -> bool {
        self.enter(visit);
        let holding = self.holding(key);
        let entries = self.queues.get_mut(key).into_iter().flatten();
        let held = entries.filter(|entry| holding.contains(&entry.zxid));
        held.map(|entry| entry.is_revoked = true).count() > 0
    }

    pub(super) fn force_release(&mut self, key: &LockKey, visit: &mut Visit) -> bool {
        self.enter(visit);
        let holding = self.holding(key);
        for zxid in &holding {
            self.delete(key, *zxid, visit);
        }
        !holding.is_empty()
    }
}
