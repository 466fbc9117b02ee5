//! The network between processes and hosts: latencies, and messages that are late, lost or cut off.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Nanos;
use super::calls::{Broken, CallId, Reply, Request, WatchId};
use super::chance::Chance;
use super::host::HostId;
use super::instance::{ProcessId, Status};
use super::world::{Event, World};

/// The network of one schedule.
#[derive(Debug)]
pub(super) struct Network {
    chance: Chance,
    /// The usual latency of a message is up to twice this.
    latency: Duration,
    /// By how much renewals may be later than other requests.
    slow_renewals: Duration,
    /// Until when a process and a host cannot reach each other.
    partitions: BTreeMap<(ProcessId, HostId), Nanos>,
}

impl Network {
    /// How fast it usually is depends on the seed.
    pub(super) fn new(seed: u64, is_calm: bool) -> Self {
        const MICROSECOND: Duration = Duration::from_micros(1);
        let mut chance = Chance::new(seed, 2);
        let latency = MICROSECOND * chance.pick(&[50, 200, 1_000, 5_000]);
        let latency = if is_calm { MICROSECOND * 200 } else { latency };
        Self { chance, latency, slow_renewals: Duration::ZERO, partitions: BTreeMap::new() }
    }

    /// A latency as it is without faults. Messages overtake each other.
    fn latency(&mut self) -> Nanos {
        super::nanos(self.latency) / 2 + self.chance.up_to(self.latency * 3 / 2)
    }

    pub(super) fn jitter(&mut self) -> Nanos {
        self.chance.up_to(Duration::from_millis(1))
    }

    pub(super) fn host_rate(&mut self, is_calm: bool) -> i64 {
        let rate = self.chance.pick(super::faults::DRIFTS);
        if is_calm { 0 } else { rate }
    }

    pub(super) const fn slow_down_renewals(&mut self, most: Duration) {
        self.slow_renewals = most;
    }

    /// How much longer than others this request is under way.
    fn slowness(&mut self, what: &str) -> Nanos {
        // One in a few: a renewal that is not slow either keeps the lease or finds that it has ended.
        const RATE: f64 = 0.15;
        let may_be_slow = what == "renew" && !self.slow_renewals.is_zero();
        let is_slow = may_be_slow && self.chance.happens(RATE);
        if is_slow { self.chance.up_to(self.slow_renewals) } else { 0 }
    }

    pub(super) fn cut(&mut self, process: ProcessId, host: HostId, until: Nanos) {
        self.partitions.insert((process, host), until);
    }

    pub(super) fn heal(&mut self) {
        self.partitions.clear();
    }

    fn is_cut(&self, process: ProcessId, host: HostId, now: Nanos) -> bool {
        self.partitions.get(&(process, host)).is_some_and(|until| *until > now)
    }
}

impl World {
    /// Sends a request of the running process.
    pub(super) fn send(&mut self, host: HostId, request: Request) -> CallId {
        let call = self.calls.begin();
        let Some(from) = self.current else { return call };
        // What a process does while it is being killed stays inside of it.
        if self.processes[from].status == Status::Dead {
            return call;
        }
        self.trace.mix(request.digest);
        let latency = self.network.latency() + self.network.slowness(&request.what);
        if self.hosts[host].down_until > self.now {
            self.after(latency, Event::Reply { to: from, call, reply: Err(Broken::Refused) });
            return call;
        }
        if let Some(delay) = self.passes(from, host, Message::Request(&request.what)) {
            let epoch = self.hosts[host].epoch;
            self.after(latency + delay, Event::Request { host, epoch, from, call, request });
        }
        call
    }

    /// Resolves a call of the running process by itself, after a moment.
    pub(super) fn resolve_soon(&mut self, call: CallId) {
        if let Some(to) = self.current {
            let moment = self.network.jitter();
            self.after(moment, Event::Reply { to, call, reply: Err(Broken::Lost) });
        }
    }

    /// Sends an answer back.
    pub(super) fn reply(
        &mut self,
        host: HostId,
        to: ProcessId,
        call: CallId,
        reply: Result<Reply, Broken>,
        what: &str,
    ) {
        let latency = self.network.latency();
        let delay = self.passes(to, host, Message::Reply(what));
        if let Some(delay) = delay.filter(|_| self.calls.is_awaited(call)) {
            self.after(latency + delay, Event::Reply { to, call, reply });
        }
    }

    /// Sends a notice.
    pub(super) fn notify(&mut self, host: HostId, to: ProcessId, watch: WatchId) {
        let latency = self.network.latency();
        if let Some(delay) = self.passes(to, host, Message::Notice) {
            self.after(latency + delay, Event::Notice { to, watch });
        }
    }

    /// Decides what happens to a message between these two. `None`: it is lost. Otherwise how late it is.
    fn passes(&mut self, process: ProcessId, host: HostId, message: Message<'_>) -> Option<Nanos> {
        if self.network.is_cut(process, host, self.now) {
            self.note_message(process, host, message, || "is lost in a partition".to_owned());
            return None;
        }
        if self.faults.loses_message() {
            self.note_message(process, host, message, || "is lost".to_owned());
            return None;
        }
        let delay = self.faults.delays_message();
        if delay > 0 {
            let late = Duration::from_nanos(delay);
            self.note_message(process, host, message, || format!("is {late:.1?} late"));
        }
        Some(delay)
    }

    fn note_message(
        &mut self,
        process: ProcessId,
        host: HostId,
        message: Message<'_>,
        fate: impl FnOnce() -> String,
    ) {
        if self.trace.is_recording() {
            let text = format!("{}: {message} {}", self.hosts[host].name, fate());
            self.note(Some(process), || text);
        }
    }
}

/// What is sent.
#[derive(Clone, Copy)]
enum Message<'a> {
    Request(&'a str),
    Reply(&'a str),
    Notice,
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(what) => write!(f, "{what}"),
            Self::Reply(what) => write!(f, "the answer to {what}"),
            Self::Notice => write!(f, "the notice that a lock may be free"),
        }
    }
}
