//! Hosts: what processes reach over the network. Each has a clock of its own and an operating system that may fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Nanos;
use super::calls::{Broken, CallId, Request, WatchId};
use super::instance::{ProcessId, Status};
use super::local_clock::scaled;
use super::timeline::Kind;
use super::world::{self, Event, World};

pub(super) type HostId = usize;

/// A host. Its state is in the requests, which share it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    /// It is the scenario's own, and no store of locks.
    pub(super) is_remote: bool,
    /// Millionths by which its clock is faster than true time.
    rate: i64,
    /// How far its clock is ahead, less than nothing after it was set back.
    ahead: i64,
    /// The least that `ahead` may be.
    pub(super) furthest_back: i64,
    /// Counts its restarts.
    pub(super) epoch: u32,
    /// When it restarted last.
    restarted: Nanos,
    /// The hosts of one group share a network and a power supply, which may fail all of them at once.
    pub(super) group: Option<usize>,
    /// Requests that arrive before this moment are executed at it.
    pub(super) paused_until: Nanos,
    /// Connections are refused before this moment.
    pub(super) down_until: Nanos,
}

/// A request's visit to its host.
pub(super) struct Visit {
    /// The host's clock, in microseconds.
    pub(super) now: u64,
    /// Its clock that nobody sets, in microseconds.
    pub(super) steady: u64,
    /// True time, which no store can read: for the checks of scenarios.
    pub(super) true_time: Nanos,
    pub(super) from: ProcessId,
    /// How often the host has restarted, and when it did so last, by its steady clock.
    pub(super) epoch: u32,
    pub(super) restarted: u64,
    /// Who is to be told that something has changed.
    pub(super) notices: Vec<(ProcessId, WatchId)>,
}

impl Host {
    fn clock(&self, now: Nanos) -> u64 {
        // So far from zero that it can be set back.
        const FIRST: i64 = 1_800_000_000_000_000_000;
        let elapsed = i64::try_from(scaled(now, self.rate)).unwrap_or(i64::MAX / 4);
        (FIRST + elapsed + self.ahead).unsigned_abs() / 1_000
    }

    fn steady(&self, now: Nanos) -> u64 {
        scaled(now, self.rate) / 1_000
    }

    /// Sets its clock forward, or back, but never further back than its operators allow.
    pub(super) fn step(&mut self, by: i64) {
        self.ahead = (self.ahead + by).max(self.furthest_back);
    }
}

impl World {
    pub(super) fn add_host(&mut self, name: String) -> HostId {
        let rate = self.network.host_rate(self.faults.is_calm());
        // So that every lease ends in time.
        let furthest_back = -8_000_000_000;
        self.hosts.push(Host {
            name,
            is_remote: false,
            rate,
            ahead: 0,
            furthest_back,
            epoch: 0,
            restarted: 0,
            group: None,
            paused_until: 0,
            down_until: 0,
        });
        self.hosts.len() - 1
    }

    /// The host's clock, in microseconds.
    pub(super) fn host_clock(&self, id: HostId) -> u64 {
        self.hosts[id].clock(self.now)
    }

    /// The host's clock that nobody sets, in microseconds.
    pub(super) fn host_steady(&self, id: HostId) -> u64 {
        self.hosts[id].steady(self.now)
    }

    /// A line for a request that was executed.
    fn note_executed(
        &mut self,
        id: HostId,
        from: ProcessId,
        call: CallId,
        request: &Request,
        answer: &str,
    ) {
        let host = &self.hosts[id];
        let for_whom = match self.processes[from].status {
            Status::Dead => ", for a process that was killed",
            _ if !self.calls.is_awaited(call) => ", for a caller that has given up",
            _ => "",
        };
        let (name, what) = (&host.name, &request.what);
        if host.is_remote {
            let text = format!("{name}: {what} -> {answer}{for_whom}");
            self.note_as(Kind::Other, Some(from), || text);
        } else {
            // With a part of the owner id, by which requests of one claim are recognised.
            let owner = request.digest & 0xffff;
            let text = format!("{name}: {what} {owner:04x} -> {answer}{for_whom}");
            self.note_as(Kind::Protocol, Some(from), || text);
        }
    }

    /// When the host restarted last, by its clock that nobody sets and in microseconds.
    pub(super) fn host_restarted(&self, id: HostId) -> u64 {
        self.hosts[id].steady(self.hosts[id].restarted)
    }

    /// All hosts that fail together with this one.
    pub(super) fn group_of(&self, id: HostId) -> Vec<HostId> {
        let Some(group) = self.hosts[id].group else { return vec![id] };
        let same = |other: &HostId| self.hosts[*other].group == Some(group);
        (0..self.hosts.len()).filter(same).collect()
    }

    /// Requests that arrive within this time wait for its end.
    pub(super) fn pause_host(&mut self, id: HostId, length: Nanos) {
        let host = &mut self.hosts[id];
        host.paused_until = host.paused_until.max(self.now + length);
        let name = host.name.clone();
        self.note(None, || format!("{name} is paused for {:.1?}", Duration::from_nanos(length)));
    }

    /// The host restarts. What it stored on disk is kept; connections and subscriptions are not.
    pub(super) fn restart(&mut self, id: HostId, downtime: Nanos) {
        let host = &mut self.hosts[id];
        host.epoch += 1;
        host.restarted = self.now;
        host.down_until = self.now + downtime;
    }
}

/// A request reaches its host.
pub(super) fn arrive(host: HostId, epoch: u32, from: ProcessId, call: CallId, request: &Request) {
    let visit = world::with(|world| {
        let now = world.now;
        let at = &world.hosts[host];
        if at.epoch != epoch {
            world.reply(host, from, call, Err(Broken::Lost), &request.what);
            return None;
        }
        if at.paused_until > now {
            // Those that have waited go on in any order.
            let at = at.paused_until + world.network.jitter();
            let request = request.clone();
            world.at(at, Event::Request { host, epoch, from, call, request });
            return None;
        }
        Some(Visit {
            now: at.clock(now),
            steady: at.steady(now),
            true_time: now,
            from,
            epoch,
            restarted: at.steady(at.restarted),
            notices: Vec::new(),
        })
    });
    let Some(mut visit) = visit else { return };
    // Outside of the world: the state of a host may be the user's own code.
    // A panic is a violation, which was noted when it began.
    let act = AssertUnwindSafe(|| (request.act)(&mut visit));
    let Ok(reply) = catch_unwind(act) else { return };
    world::with(|world| {
        world.trace.mix(request.digest ^ reply.digest);
        if world.trace.is_recording() {
            world.note_executed(host, from, call, request, &reply.text);
        }
        for (to, watch) in visit.notices {
            world.notify(host, to, watch);
        }
        world.reply(host, from, call, Ok(reply), &request.what);
    });
}
