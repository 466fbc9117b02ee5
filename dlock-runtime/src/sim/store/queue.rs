//! A store that queues waiters itself, as etcd does: one host with entries in the order of their creation, each under a
//! lease.
//!
//! Leases end by the clock of the host that nobody sets. A restart keeps them.

mod client;
mod joining;
mod requests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) use self::client::QueueClient;
use super::occupancy::Occupancy;
use super::world;
use crate::backend::{Holder, LockState, Mode, Waiter};
use crate::client_info::ClientInfo;
use crate::key::LockKey;
use crate::lock_table::queue::{Position, holders, position};
use crate::owner::OwnerId;
use crate::sim::Nanos;
use crate::sim::calls::WatchId;
use crate::sim::host::{HostId, Visit};
use crate::sim::instance::ProcessId;
use crate::token::FencingToken;

/// The host and what it stores.
pub(super) struct Queue {
    host: HostId,
    state: Arc<Mutex<State>>,
}

/// Microseconds of the host's steady clock.
type Micros = u64;

type Revision = u64;

#[derive(Default)]
struct State {
    revision: Revision,
    leases: BTreeMap<i64, Lease>,
    queues: BTreeMap<LockKey, Vec<Entry>>,
    watches: Vec<Watched>,
    /// The run of the host in which the watches began.
    epoch: u32,
    occupancy: Occupancy,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Micros,
    ends: Micros,
}

/// A holder or a waiter.
#[derive(Clone, Debug)]
struct Entry {
    owner: OwnerId,
    mode: Mode,
    /// When it was created: its position and its token.
    revision: Revision,
    lease: i64,
    client_info: ClientInfo,
    /// It was released, and is kept for the rest of a `min_hold`.
    is_kept: bool,
    is_revoked: bool,
}

/// A waiter that wants to know when an entry is gone.
struct Watched {
    key: LockKey,
    /// Any entry before this one, which is the waiter's own.
    own: Revision,
    /// This entry and no other.
    awaited: Option<Revision>,
    process: ProcessId,
    watch: WatchId,
}

impl Queue {
    pub(super) fn new() -> Self {
        let host = world::with(|world| world.add_host("store".to_owned()));
        Self { host, state: Arc::default() }
    }

    pub(super) const fn host(&self) -> HostId {
        self.host
    }

    /// The state at this moment.
    fn state(&self) -> MutexGuard<'_, State> {
        let (now, true_time) = world::with(|world| (world.host_steady(self.host), world.now));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire(now, true_time);
        state
    }

    /// Whether a call that began at this moment could have found the key busy.
    pub(super) fn was_occupied(&self, key: &LockKey, since: Nanos) -> bool {
        self.state().occupancy.was(key, since)
    }

    pub(super) fn occupied(&self) -> Vec<String> {
        let state = self.state();
        let used = state.queues.iter().filter(|(_, queue)| !queue.is_empty());
        used.map(|(key, queue)| format!("{key}: {queue:?}")).collect()
    }
}

impl State {
    /// Begins a visit: subscriptions end with the host's run, and leases when their time is up.
    fn enter(&mut self, visit: &mut Visit) {
        if self.epoch != visit.epoch {
            self.epoch = visit.epoch;
            self.watches.clear();
        }
        for (key, gone) in self.expire(visit.steady, visit.true_time) {
            self.notify(&key, gone, visit);
        }
    }

    /// Ends leases. Returns the entries that are gone with them.
    fn expire(&mut self, now: Micros, true_time: Nanos) -> Vec<(LockKey, Revision)> {
        let ended = |lease: &Lease| lease.ends <= now;
        let ended: Vec<_> = self
            .leases
            .iter()
            .filter(|(_, lease)| ended(lease))
            .map(|(id, lease)| (*id, true_time.saturating_sub((now - lease.ends) * 1_000)))
            .collect();
        ended.into_iter().flat_map(|(id, at)| self.end_lease(id, at)).collect()
    }

    /// Deletes a lease, and the entries under it. Returns these.
    fn end_lease(&mut self, id: i64, at: Nanos) -> Vec<(LockKey, Revision)> {
        let mut gone = Vec::new();
        if self.leases.remove(&id).is_none() {
            return gone;
        }
        for (key, queue) in &mut self.queues {
            queue.retain(|entry| {
                let stays = entry.lease != id;
                if !stays {
                    self.occupancy.note(key, entry.owner, at);
                    gone.push((key.clone(), entry.revision));
                }
                stays
            });
        }
        gone
    }

    /// Deletes one entry.
    fn delete(&mut self, key: &LockKey, revision: Revision, visit: &mut Visit) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some(at) = queue.iter().position(|entry| entry.revision == revision) else { return };
        let entry = queue.remove(at);
        self.occupancy.note(key, entry.owner, visit.true_time);
        self.notify(key, revision, visit);
    }

    /// Notifies those who wait for an entry that is gone. Each watch ends with its first notice.
    fn notify(&mut self, key: &LockKey, gone: Revision, visit: &mut Visit) {
        self.watches.retain(|watched| {
            let is_awaited = watched.key == *key
                && gone < watched.own
                && watched.awaited.is_none_or(|awaited| awaited == gone);
            if is_awaited {
                visit.notices.push((watched.process, watched.watch));
            }
            !is_awaited
        });
    }

    fn entry(&mut self, key: &LockKey, owner: OwnerId) -> Option<&mut Entry> {
        self.queues.get_mut(key)?.iter_mut().find(|entry| entry.owner == owner && !entry.is_kept)
    }

    /// The entries ahead of this one, in the order of the queue.
    fn ahead(&self, key: &LockKey, own: Revision) -> Vec<(Revision, Mode)> {
        let queue = self.queues.get(key).into_iter().flatten();
        let ahead = queue.take_while(|entry| entry.revision < own);
        ahead.map(|entry| (entry.revision, entry.mode)).collect()
    }

    fn position(&self, key: &LockKey, own: Revision, mode: Mode) -> Position<Revision> {
        position(mode, self.ahead(key, own))
    }

    /// The revisions of the holders of a key.
    fn holding(&self, key: &LockKey) -> Vec<Revision> {
        let queue = self.queues.get(key).into_iter().flatten();
        holders(queue.map(|entry| (entry.revision, entry.mode)).collect())
    }

    fn state_of(&self, key: &LockKey, now: Micros) -> LockState {
        let holding = self.holding(key).len();
        let queue = self.queues.get(key).map_or(&[][..], Vec::as_slice);
        let (holding, waiting) = queue.split_at(holding);
        let holders = holding.iter().map(|entry| self.holder(entry, now));
        let waiters = waiting.iter().map(|entry| {
            Waiter::new(Some(entry.owner), entry.mode, Some(entry.client_info.clone()))
        });
        LockState::new(key.clone(), holders.collect(), waiters.collect())
    }

    fn holder(&self, entry: &Entry, now: Micros) -> Holder {
        let ends = self.leases.get(&entry.lease).map_or(now, |lease| lease.ends);
        let left = std::time::Duration::from_micros(ends.saturating_sub(now));
        let owner = Some(entry.owner).filter(|_| !entry.is_kept);
        Holder::new(owner, FencingToken::new(entry.revision), left)
            .with_mode(entry.mode)
            .with_client_info(Some(entry.client_info.clone()))
            .with_revoked(entry.is_revoked)
    }
}
