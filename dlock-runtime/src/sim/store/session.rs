//! A store whose entries last as long as the session of their process, as ZooKeeper does.
//!
//! The host is a follower. It answers pings and reads by itself, and tells the leader later which sessions were in use.
//! The leader, which never fails here, ends a session that it has not heard of for the session's timeout. What the
//! follower has not told the leader when it restarts is forgotten. A process then connects anew, and the follower has the
//! leader confirm its session, which is a sign of life that the leader hears at once.
//!
//! The requests of a session are executed in the order in which they were sent, as those of one connection are. One that
//! a later one has overtaken belongs to a connection that is over, and is not executed.

mod client;
mod proved;
mod requests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) use self::client::SessionClient;
use super::occupancy::Occupancy;
use super::world;
use crate::backend::Mode;
use crate::client_info::ClientInfo;
use crate::key::LockKey;
use crate::lock_table::queue::{Position, position};
use crate::lock_table::record::micros;
use crate::owner::OwnerId;
use crate::sim::Nanos;
use crate::sim::calls::WatchId;
use crate::sim::host::{HostId, Visit};
use crate::sim::instance::ProcessId;

/// How long a session lasts without a sign of life. Each schedule has one of these.
const TIMEOUTS: &[u64] = &[300, 600, 1_000, 2_000];

/// The number of times per timeout at which the follower tells the leader which sessions were in use.
const REPORTS: u64 = 4;

/// The host and what it stores.
pub(super) struct Sessions {
    host: HostId,
    timeout: Duration,
    state: Arc<Mutex<State>>,
}

/// Microseconds of the host's steady clock.
type Micros = u64;

/// The number of the transaction that created an entry: its position and its token.
type Zxid = u64;

type SessionId = u64;

/// A session's request, by number.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    session: SessionId,
    number: u64,
}

struct State {
    timeout: Micros,
    zxid: Zxid,
    sessions: BTreeMap<SessionId, Session>,
    queues: BTreeMap<LockKey, Vec<Entry>>,
    watches: Vec<Watched>,
    /// The run of the host in which the watches began.
    epoch: u32,
    occupancy: Occupancy,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    /// When the leader ends it, as far as the leader knows.
    ends: Micros,
    /// When it was in use last, if the leader has not been told.
    used: Option<Micros>,
    /// The number of the last request that was executed.
    last: u64,
    /// The run of the follower to which its process is connected.
    epoch: u32,
}

/// A holder or a waiter.
#[derive(Clone, Debug)]
struct Entry {
    owner: OwnerId,
    mode: Mode,
    zxid: Zxid,
    session: SessionId,
    client_info: ClientInfo,
    is_revoked: bool,
}

/// A waiter that wants to know when an entry is gone.
struct Watched {
    key: LockKey,
    own: Zxid,
    /// This entry; otherwise any entry before the waiter's own.
    awaited: Option<Zxid>,
    process: ProcessId,
    watch: WatchId,
}

impl Sessions {
    pub(super) fn new() -> Self {
        let host = world::with(|world| world.add_host("store".to_owned()));
        let timeout = Duration::from_millis(TIMEOUTS[crate::sim::random(TIMEOUTS.len())]);
        let state = State {
            timeout: micros(timeout),
            zxid: 0,
            sessions: BTreeMap::new(),
            queues: BTreeMap::new(),
            watches: Vec::new(),
            epoch: 0,
            occupancy: Occupancy::default(),
        };
        Self { host, timeout, state: Arc::new(Mutex::new(state)) }
    }

    pub(super) const fn host(&self) -> HostId {
        self.host
    }

    /// The state at this moment.
    fn state(&self) -> MutexGuard<'_, State> {
        let (now, restarted, true_time) = world::with(|world| {
            (world.host_steady(self.host), world.host_restarted(self.host), world.now)
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance(now, restarted, true_time);
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
    /// Begins a visit.
    fn enter(&mut self, visit: &mut Visit) {
        for (key, gone) in self.advance(visit.steady, visit.restarted, visit.true_time) {
            self.notify(&key, gone, visit);
        }
        if self.epoch != visit.epoch {
            self.epoch = visit.epoch;
            self.watches.clear();
        }
    }

    /// What has happened until this moment: reports of the follower, and the ends of sessions. Returns the entries that
    /// are gone.
    fn advance(
        &mut self,
        now: Micros,
        restarted: Micros,
        true_time: Nanos,
    ) -> Vec<(LockKey, Zxid)> {
        let (timeout, period) = (self.timeout, self.timeout / REPORTS);
        for session in self.sessions.values_mut() {
            let Some(used) = session.used else { continue };
            let reported = (used / period + 1) * period;
            if used <= restarted && restarted < reported {
                session.used = None;
            } else if reported <= now {
                session.used = None;
                if reported < session.ends {
                    session.ends = session.ends.max(used + timeout);
                }
            }
        }
        let ended = self.sessions.iter().filter(|(_, session)| session.ends <= now);
        let ended = ended
            .map(|(id, session)| (*id, true_time.saturating_sub((now - session.ends) * 1_000)));
        let ended: Vec<_> = ended.collect();
        ended.into_iter().flat_map(|(id, at)| self.end_session(id, at)).collect()
    }

    /// Ends a session, with its entries. Returns these.
    fn end_session(&mut self, id: SessionId, at: Nanos) -> Vec<(LockKey, Zxid)> {
        self.sessions.remove(&id);
        let mut gone = Vec::new();
        for (key, queue) in &mut self.queues {
            queue.retain(|entry| {
                let stays = entry.session != id;
                if !stays {
                    self.occupancy.note(key, entry.owner, at);
                    gone.push((key.clone(), entry.zxid));
                }
                stays
            });
        }
        gone
    }

    /// Deletes one entry.
    fn delete(&mut self, key: &LockKey, zxid: Zxid, visit: &mut Visit) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some(at) = queue.iter().position(|entry| entry.zxid == zxid) else { return };
        let entry = queue.remove(at);
        self.occupancy.note(key, entry.owner, visit.true_time);
        self.notify(key, zxid, visit);
    }

    /// Notifies those who wait for an entry that is gone. Each watch ends with its first notice.
    fn notify(&mut self, key: &LockKey, gone: Zxid, visit: &mut Visit) {
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

    /// The entries ahead of this one, in the order of the queue.
    fn ahead(&self, key: &LockKey, own: Zxid) -> Vec<(Zxid, Mode)> {
        let queue = self.queues.get(key).into_iter().flatten();
        let ahead = queue.take_while(|entry| entry.zxid < own);
        ahead.map(|entry| (entry.zxid, entry.mode)).collect()
    }

    fn position(&self, key: &LockKey, own: Zxid, mode: Mode) -> Position<Zxid> {
        position(mode, self.ahead(key, own))
    }
}
