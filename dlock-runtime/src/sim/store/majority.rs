//! A lock on a majority of independent nodes, as Redlock has it: each node is a host with a clock of its own, and may
//! restart with its data or without.
//!
//! The nodes are those of Redlock's [model], the decisions those of its [rounds](crate::lock_table::majority::round).

mod client;
mod gather;
mod release;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) use self::client::MajorityClient;
use super::occupancy::Occupancy;
use super::world;
use crate::key::LockKey;
use crate::lock_table::majority::model::{Node, Shown};
use crate::owner::OwnerId;
use crate::sim::calls::WatchId;
use crate::sim::host::{HostId, Visit};
use crate::sim::instance::ProcessId;
use crate::sim::{Nanos, nanos};

/// The longest lease.
pub(super) const MAX_LEASE: Duration = Duration::from_secs(1);

/// How far the clocks of nodes and clients may differ, unless they are wrong: by their drift in a minute, and by how far
/// they are set back.
const TOLERANCE: Duration = Duration::from_millis(700);

/// How far back a node's clock is set at most.
const SET_BACK: Duration = Duration::from_millis(200);

/// How long a node that may have forgotten something does not count. The same as for real nodes with these settings.
fn quarantine() -> Duration {
    let drift = MAX_LEASE / 100 + Duration::from_millis(2);
    (MAX_LEASE + drift).max(TOLERANCE * 3) + Duration::from_millis(500)
}

fn micros(duration: Duration) -> u64 {
    nanos(duration) / 1_000
}

/// The nodes.
pub(super) struct Majority {
    nodes: Vec<Host>,
}

/// The host of a node, and what it stores.
struct Host {
    id: HostId,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The node as a key that was never used sees it. It has the marks of the server.
    unused: Node,
    keys: BTreeMap<LockKey, Node>,
    /// Decides what is left after each restart.
    luck: u64,
    /// Who is told of releases, in the present run of the host.
    watches: Vec<(LockKey, ProcessId, WatchId)>,
    epoch: u32,
    occupancy: Occupancy,
}

impl Majority {
    pub(super) fn new(nodes: usize) -> Self {
        // The number of the first host, which no other group has.
        let group = world::with(|world| world.hosts.len());
        Self { nodes: (0..nodes).map(|number| Host::new(group, number)).collect() }
    }

    pub(super) fn hosts(&self) -> Vec<HostId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Whether a call that began at this moment could have found the key busy.
    pub(super) fn was_occupied(&self, key: &LockKey, since: Nanos) -> bool {
        self.nodes.iter().any(|node| node.state().occupancy.was(key, since))
    }

    pub(super) fn occupied(&self) -> Vec<String> {
        self.nodes.iter().flat_map(Host::occupied).collect()
    }
}

impl Host {
    fn new(group: usize, number: usize) -> Self {
        let luck = u64::try_from(crate::sim::random(usize::MAX)).unwrap_or(0);
        let (id, now) = world::with(|world| {
            let id = world.add_host(format!("node {number}"));
            world.hosts[id].group = Some(group);
            world.hosts[id].furthest_back = -i64::try_from(nanos(SET_BACK)).unwrap_or(0);
            (id, world.host_clock(id))
        });
        let mut unused = Node::new(now, run(0));
        // Nothing was ever stored on any node.
        unused.greet(micros(quarantine()), true);
        let state = State {
            unused,
            keys: BTreeMap::new(),
            luck,
            watches: Vec::new(),
            epoch: 0,
            occupancy: Occupancy::default(),
        };
        Self { id, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn occupied(&self) -> Vec<String> {
        let now = world::with(|world| world.host_clock(self.id));
        let mut state = self.state();
        let shown = state.keys.iter_mut().filter_map(|(key, node)| {
            node.now = now;
            Some(format!("{key} on host {}: {:?}", self.id, node.shown()?))
        });
        shown.collect()
    }
}

/// The number of a host's run, as its node knows it.
fn run(epoch: u32) -> u64 {
    u64::from(epoch) + 1
}

/// The owner as the model knows it, and back. Two owners of one schedule do not have the same bits there.
fn bits(owner: OwnerId) -> u64 {
    let low = u128::from_be_bytes(*owner.as_bytes()) & u128::from(u64::MAX);
    u64::try_from(low).unwrap_or(0)
}

fn owner(bits: u64) -> OwnerId {
    OwnerId::from_bytes(u128::from(bits).to_be_bytes())
}

impl State {
    /// Begins a visit: a host that has restarted has another run, and lost its subscriptions and perhaps its data.
    fn enter(&mut self, visit: &Visit) {
        if self.epoch == visit.epoch {
            return;
        }
        self.epoch = visit.epoch;
        self.watches.clear();
        let run = run(self.epoch);
        let keeps_data = (self.luck >> (self.epoch % 64)) & 1 == 0;
        if !keeps_data {
            self.keys.clear();
            self.unused.empty();
        }
        for node in self.keys.values_mut().chain([&mut self.unused]) {
            let earlier = node.clone();
            node.restart(run, Some(&earlier));
        }
    }

    /// A client connects. Answers the run of the server.
    fn greet(&mut self, visit: &Visit) -> u64 {
        self.enter(visit);
        for node in self.keys.values_mut().chain([&mut self.unused]) {
            node.now = visit.now;
            node.greet(micros(quarantine()), false);
        }
        run(self.epoch)
    }

    /// Executes a script about a key.
    fn script<R>(&mut self, key: &LockKey, visit: &Visit, act: impl FnOnce(&mut Node) -> R) -> R {
        self.enter(visit);
        let node = self.keys.entry(key.clone()).or_insert_with(|| self.unused.clone());
        node.now = visit.now;
        let before = node.shown();
        let answer = act(node);
        let after = node.shown();
        if let Some(gone) =
            before.filter(|before| after.is_none_or(|after| after.owner != before.owner))
        {
            self.occupancy.note(key, owner(gone.owner), visit.true_time);
        }
        if let Some(Shown { owner: holder, left, .. }) = after {
            self.occupancy.note(key, owner(holder), visit.true_time + left * 1_000);
        }
        answer
    }

    fn watch(&mut self, key: &LockKey, watch: WatchId, visit: &Visit) {
        self.enter(visit);
        self.watches.push((key.clone(), visit.from, watch));
    }

    /// Notifies those who watch a key.
    fn notify(&self, key: &LockKey, visit: &mut Visit) {
        let watching = self.watches.iter().filter(|(watched, ..)| watched == key);
        visit.notices.extend(watching.map(|(_, process, watch)| (*process, *watch)));
    }

    /// What the node shows of keys, for operators.
    fn list(&mut self, prefix: &str, visit: &Visit) -> Vec<(LockKey, Shown)> {
        self.enter(visit);
        let found = self.keys.iter_mut().filter(|(key, _)| key.as_str().starts_with(prefix));
        let shown = found.filter_map(|(key, node)| {
            node.now = visit.now;
            Some((key.clone(), node.shown()?))
        });
        shown.collect()
    }
}
