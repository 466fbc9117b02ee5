//! Which faults happen, and when: the seed decides, within what the scenario allows.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Nanos;
use super::chance::Chance;
use super::instance::ProcessId;
use super::nanos;
use super::world::{Event, World};

/// By how many millionths a clock may be fast. Two clocks differ by less than the 1 % that a validity allows for.
pub(super) const DRIFTS: &[i64] = &[-4_000, -1_000, 0, 0, 0, 1_000, 4_000];

/// A host's clock may be set back by up to this.
const BACKWARD: Duration = Duration::from_secs(5);

/// A host's clock may be set forward by up to this, which every validity allows for.
const FORWARD: Duration = Duration::from_micros(500);

/// Which faults a schedule may have.
///
/// Each schedule uses some of them, with a frequency of its own: a fault that always happens hides bugs that need a
/// rare one.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fault")]
pub struct FaultOptions {
    pub(super) lost_messages: bool,
    pub(super) late_messages: bool,
    pub(super) pauses: bool,
    pub(super) kills: bool,
    pub(super) restarts: bool,
    pub(super) partitions: bool,
    pub(super) clocks: bool,
    pub(super) until: Duration,
}

impl Default for FaultOptions {
    fn default() -> Self {
        Self::all()
    }
}

macro_rules! switches {
    ($($(#[$doc:meta])+ $name:ident;)+) => {
        impl FaultOptions {
            $(
                $(#[$doc])+
                #[must_use]
                pub const fn $name(mut self, allowed: bool) -> Self {
                    self.$name = allowed;
                    self
                }
            )+
        }
    };
}

switches! {
    /// Sets whether requests, replies and notices may be lost.
    lost_messages;
    /// Sets whether messages may be seconds late.
    late_messages;
    /// Sets whether processes may be paused or suspended, and hosts be paused.
    pauses;
    /// Sets whether processes may be killed.
    kills;
    /// Sets whether hosts may restart. They keep what they have stored.
    restarts;
    /// Sets whether a process and a host may lose sight of each other for a time.
    partitions;
    /// Sets whether clocks may drift, and those of hosts be set.
    clocks;
}

impl FaultOptions {
    /// Every fault, for the first 20 simulated seconds.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            lost_messages: true,
            late_messages: true,
            pauses: true,
            kills: true,
            restarts: true,
            partitions: true,
            clocks: true,
            until: Duration::from_secs(20),
        }
    }

    /// No fault: only the order of events differs from seed to seed.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            lost_messages: false,
            late_messages: false,
            pauses: false,
            kills: false,
            restarts: false,
            partitions: false,
            clocks: false,
            until: Duration::ZERO,
        }
    }

    /// Sets the simulated time after which no fault begins.
    #[must_use]
    pub const fn until(mut self, until: Duration) -> Self {
        self.until = until;
        self
    }
}

/// Which of the faults that a seed has in store may happen. They are numbered in order.
#[derive(Clone, Debug)]
pub(super) enum Allowed {
    All,
    Only(BTreeSet<u32>),
}

/// The faults of one schedule.
#[derive(Debug)]
pub(super) struct Faults {
    options: FaultOptions,
    chance: Chance,
    allowed: Allowed,
    /// Those that have happened.
    happened: BTreeSet<u32>,
    next: u32,
    loss: f64,
    late: f64,
    latest: Duration,
    /// The mean time between larger faults. `None`: there are none.
    pace: Option<Duration>,
    kinds: Vec<Kind>,
    is_over: bool,
}

/// A fault that is larger than a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    PauseProcess,
    SuspendProcess,
    KillProcess,
    PauseHost,
    RestartHost,
    Partition,
    SetClock,
}

impl Faults {
    pub(super) fn new(seed: u64, options: FaultOptions, allowed: Allowed) -> Self {
        let mut chance = Chance::new(seed, 3);
        let loss = chance.pick(&[0.0, 0.0, 0.005, 0.05]);
        let late = chance.pick(&[0.0, 0.0, 0.01, 0.1]);
        let latest = Duration::from_millis(chance.pick(&[50, 400, 3_000]));
        let pace = chance.pick(&[None, Some(150), Some(600), Some(600), Some(3_000)]);
        let of_class =
            |allowed: bool, kinds: &'static [Kind]| kinds.iter().filter(move |_| allowed);
        let kinds = of_class(
            options.pauses,
            &[Kind::PauseProcess, Kind::PauseProcess, Kind::SuspendProcess, Kind::PauseHost],
        )
        .chain(of_class(options.kills, &[Kind::KillProcess]))
        .chain(of_class(options.restarts, &[Kind::RestartHost]))
        .chain(of_class(options.partitions, &[Kind::Partition]))
        .chain(of_class(options.clocks, &[Kind::SetClock]));
        // About half of the kinds that are allowed.
        let kinds = kinds.copied().filter(|_| chance.happens(0.6)).collect();
        Self {
            loss: if options.lost_messages { loss } else { 0.0 },
            late: if options.late_messages { late } else { 0.0 },
            latest,
            pace: pace.map(Duration::from_millis),
            kinds,
            is_over: options.until.is_zero(),
            options,
            chance,
            allowed,
            happened: BTreeSet::new(),
            next: 0,
        }
    }

    /// Whether there is none from the beginning.
    pub(super) const fn is_calm(&self) -> bool {
        self.options.until.is_zero()
    }

    pub(super) fn happened(&self) -> &BTreeSet<u32> {
        &self.happened
    }

    /// By how many millionths the clock of a new machine is fast.
    pub(super) fn drift(&self, chance: &mut Chance) -> i64 {
        let rate = chance.pick(DRIFTS);
        if self.options.clocks { rate } else { 0 }
    }

    /// How long a killed service is down.
    pub(super) fn downtime(&mut self) -> Nanos {
        self.chance.up_to(Duration::from_secs(2))
    }

    /// Whether the next fault in store, which has come up, may happen.
    fn may_happen(&mut self) -> bool {
        let number = self.next;
        self.next += 1;
        let may = match &self.allowed {
            Allowed::All => true,
            Allowed::Only(these) => these.contains(&number),
        };
        if may {
            self.happened.insert(number);
        }
        may
    }

    pub(super) fn loses_message(&mut self) -> bool {
        !self.is_over && self.chance.happens(self.loss) && self.may_happen()
    }

    pub(super) fn delays_message(&mut self) -> Nanos {
        if self.is_over || !self.chance.happens(self.late) {
            return 0;
        }
        let delay = self.chance.up_to(self.latest);
        if self.may_happen() { delay } else { 0 }
    }

    fn until_next(&mut self) -> Option<Nanos> {
        if self.is_over || self.kinds.is_empty() {
            return None;
        }
        self.pace.map(|pace| self.chance.until_next(pace))
    }

    /// How long something lasts: often short, sometimes longer than a lease.
    fn length(&mut self) -> Nanos {
        let most = self.chance.pick(&[20, 200, 1_500, 1_500, 6_000]);
        self.chance.up_to(Duration::from_millis(most))
    }
}

/// What a larger fault asks of the schedule that the world cannot do by itself.
pub(super) enum Ask {
    Nothing,
    Kill(ProcessId),
}

impl World {
    /// Schedules the first fault, and the end of all faults.
    pub(super) fn schedule_faults(&mut self) {
        self.at(nanos(self.faults.options.until), Event::Calm);
        self.schedule_fault();
    }

    fn schedule_fault(&mut self) {
        if let Some(delay) = self.faults.until_next() {
            self.after(delay, Event::Fault);
        }
    }

    /// No fault begins from now on, and those that last end.
    pub(super) fn calm(&mut self) {
        if self.faults.is_over {
            return;
        }
        self.note(None, || "no more faults".to_owned());
        self.faults.is_over = true;
        self.network.heal();
        for host in &mut self.hosts {
            host.paused_until = host.paused_until.min(self.now);
            host.down_until = host.down_until.min(self.now);
        }
    }

    /// The next fault comes up.
    pub(super) fn fault(&mut self) -> Ask {
        if self.faults.is_over {
            return Ask::Nothing;
        }
        self.schedule_fault();
        let kinds = std::mem::take(&mut self.faults.kinds);
        let kind = self.faults.chance.pick(&kinds);
        self.faults.kinds = kinds;
        let processes = self.vulnerable();
        let (length, one) = (self.faults.length(), self.faults.chance.word());
        let other = self.faults.chance.word();
        if processes.is_empty() || self.hosts.is_empty() || !self.faults.may_happen() {
            return Ask::Nothing;
        }
        let process = processes[usize::try_from(one).unwrap_or(0) % processes.len()];
        let host = usize::try_from(other).unwrap_or(0) % self.hosts.len();
        let is_common = (other >> 32).is_multiple_of(4);
        if is_common && matches!(kind, Kind::PauseHost | Kind::Partition) {
            for host in self.group_of(host) {
                self.apply(kind, process, host, length);
            }
            return Ask::Nothing;
        }
        self.apply(kind, process, host, length)
    }

    fn apply(&mut self, kind: Kind, process: ProcessId, host: usize, length: Nanos) -> Ask {
        let until = self.now + length;
        let lasting = Duration::from_nanos(length);
        let name = self.hosts[host].name.clone();
        match kind {
            Kind::PauseProcess => self.pause(process, length, false),
            Kind::SuspendProcess => self.pause(process, length, true),
            Kind::KillProcess => return Ask::Kill(process),
            Kind::PauseHost => {
                self.pause_host(host, length);
            }
            Kind::RestartHost => {
                self.restart(host, length / 4);
                self.note(None, || format!("{name} restarts, and is down for {:.1?}", lasting / 4));
            }
            Kind::Partition => {
                self.network.cut(process, host, until);
                self.note(Some(process), || format!("cut off from {name} for {lasting:.1?}"));
            }
            Kind::SetClock => self.set_clock(host, length),
        }
        Ask::Nothing
    }

    fn set_clock(&mut self, host: usize, length: Nanos) {
        let name = self.hosts[host].name.clone();
        // An even number of nanoseconds: forward. Otherwise back.
        let (by, direction) = if length.is_multiple_of(2) {
            (length % nanos(FORWARD), 1)
        } else {
            (length % nanos(BACKWARD), -1)
        };
        self.hosts[host].step(direction * i64::try_from(by).unwrap_or(0));
        let how = if direction > 0 { "forward" } else { "back" };
        self.note(None, || {
            format!("{name}'s clock is set {how} by {:.1?}", Duration::from_nanos(by))
        });
    }
}
