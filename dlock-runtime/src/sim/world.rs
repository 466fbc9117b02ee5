//! One schedule: its processes, hosts and network, and what is going to happen.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use tokio::time::Instant;

use super::Nanos;
use super::calls::{Broken, CallId, Calls, Reply, Request, WatchId};
use super::chance::Chance;
use super::faults::Faults;
use super::host::{Host, HostId};
use super::instance::{Instance, Looked, ProcessId, Status};
use super::machine::Machine;
use super::network::Network;
use super::store::Store;
use super::timeline::{Kind, Note};
use super::trace::Trace;
use crate::registry::Registry;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    /// Cheaper to look at, for threads that simulate nothing.
    static IS_ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `act` with the schedule that runs on this thread, if there is one.
pub(super) fn try_with<R>(act: impl FnOnce(&mut World) -> R) -> Option<R> {
    if !IS_ACTIVE.try_with(Cell::get).unwrap_or(false) {
        return None;
    }
    WORLD.with(|world| world.try_borrow_mut().ok()?.as_mut().map(act))
}

/// # Panics
/// Outside of a schedule.
#[track_caller]
pub(super) fn with<R>(act: impl FnOnce(&mut World) -> R) -> R {
    try_with(act).expect("this works inside of `sim::explore` only")
}

/// Begins a schedule on this thread.
pub(super) fn install(world: World) {
    assert!(!IS_ACTIVE.replace(true), "a simulation cannot run inside of another one");
    WORLD.set(Some(world));
}

/// Ends the schedule of this thread, and returns what is left of it.
pub(super) fn uninstall() -> Option<World> {
    // The machines first: what their tasks do when they are dropped still happens in the schedule.
    while let Some((id, machine)) = try_with(World::next_machine).flatten() {
        try_with(|world| world.current = Some(id));
        drop(machine);
    }
    let world = WORLD.take();
    IS_ACTIVE.set(false);
    world
}

/// What is going to happen.
pub(super) enum Event {
    Request {
        host: HostId,
        epoch: u32,
        from: ProcessId,
        call: CallId,
        request: Request,
    },
    Reply {
        to: ProcessId,
        call: CallId,
        reply: Result<Reply, Broken>,
    },
    Notice {
        to: ProcessId,
        watch: WatchId,
    },
    /// A timer of the process fires, when the process's own clock shows `local`, unless it was withdrawn.
    Timer {
        process: ProcessId,
        timer: Option<u32>,
        local: Nanos,
    },
    Pause {
        process: ProcessId,
        length: Nanos,
    },
    Resume {
        process: ProcessId,
    },
    Kill {
        process: ProcessId,
    },
    Restart {
        process: ProcessId,
    },
    /// The next fault that the seed has in store.
    Fault,
    /// No more faults.
    Calm,
}

struct Scheduled {
    at: Nanos,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// One schedule.
pub(super) struct World {
    pub(super) seed: u64,
    /// True time. No process and no host can read it.
    pub(super) now: Nanos,
    pub(super) steps: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    next_number: u64,
    /// Whether each timer that was noted is still wanted.
    timers: Vec<bool>,
    /// The process that is running.
    pub(super) current: Option<ProcessId>,
    pub(super) processes: Vec<Instance>,
    pub(super) hosts: Vec<Host>,
    pub(super) calls: Calls,
    pub(super) network: Network,
    pub(super) faults: Faults,
    /// The backends of every process.
    pub(super) backends: Vec<(String, Store)>,
    /// Decides who is next when several could be.
    order: Chance,
    pub(super) trace: Trace,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults, trace: Trace) -> Self {
        Self {
            seed,
            now: 0,
            steps: 0,
            events: BinaryHeap::new(),
            next_number: 0,
            timers: Vec::new(),
            current: None,
            processes: Vec::new(),
            hosts: Vec::new(),
            calls: Calls::default(),
            network: Network::new(seed, faults.is_calm()),
            faults,
            backends: Vec::new(),
            order: Chance::new(seed, 1),
            trace,
        }
    }

    /// Schedules an event.
    pub(super) fn after(&mut self, delay: Nanos, event: Event) {
        self.at(self.now.saturating_add(delay), event);
    }

    pub(super) fn at(&mut self, at: Nanos, event: Event) {
        let number = self.next_number;
        self.next_number += 1;
        self.events.push(Reverse(Scheduled { at: at.max(self.now), number, event }));
    }

    /// When the next event happens.
    pub(super) fn next_at(&mut self) -> Option<Nanos> {
        while let Some(Reverse(next)) = self.events.peek() {
            match next.event {
                Event::Timer { timer: Some(timer), .. } if !self.timers[timer as usize] => {
                    self.events.pop();
                }
                _ => return Some(next.at),
            }
        }
        None
    }

    /// Moves on to the next event.
    pub(super) fn take_next(&mut self) -> Option<Event> {
        let at = self.next_at()?;
        let Reverse(next) = self.events.pop()?;
        self.now = at;
        // A timer of tokio's that was looked for may turn out to be none.
        let is_step = !matches!(next.event, Event::Timer { timer: None, .. });
        self.steps += u64::from(is_step);
        Some(next.event)
    }

    /// A process that can go on at this moment.
    pub(super) fn next_ready(&mut self) -> Option<ProcessId> {
        let is_ready = |process: &Instance| {
            process.status == Status::Running
                && process.machine.as_ref().is_some_and(|machine| machine.is_woken())
        };
        let mut ready = self.processes.iter().enumerate().filter(|(_, process)| is_ready(process));
        let (first, _) = ready.next()?;
        let others = ready.count();
        if others == 0 {
            return Some(first);
        }
        let choice = self.order.below(others + 1);
        let mut ready = self.processes.iter().enumerate().filter(|(_, process)| is_ready(process));
        ready.nth(choice).map(|(id, _)| id)
    }

    /// Prepares a process to run: its machine, and how far its clock has to advance.
    pub(super) fn enter(&mut self, id: ProcessId) -> Option<(Rc<Machine>, Nanos)> {
        let now = self.now;
        let process = &mut self.processes[id];
        if process.status != Status::Running {
            return None;
        }
        let advance = process.clock.advance_to(now);
        process.looked = Looked::Not;
        let machine = Rc::clone(process.machine.as_ref()?);
        self.current = Some(id);
        Some((machine, advance))
    }

    fn next_machine(&mut self) -> Option<(ProcessId, Rc<Machine>)> {
        let mut each = self.processes.iter_mut().enumerate();
        each.find_map(|(id, process)| Some((id, process.stop()?)))
    }

    fn current(&mut self) -> Option<&mut Instance> {
        let current = self.current?;
        self.processes.get_mut(current)
    }

    /// The clock of the running process that counts suspends.
    pub(super) fn boot_clock(&mut self) -> Option<Nanos> {
        let now = self.now;
        self.current().map(|process| process.clock.boot(now))
    }

    /// The random choices of the running process.
    pub(super) fn chance(&mut self) -> Option<&mut Chance> {
        self.current().map(|process| &mut process.chance)
    }

    pub(super) fn last_pause(&mut self) -> (Nanos, Nanos) {
        self.current().map(|process| process.last_pause).unwrap_or_default()
    }

    pub(super) fn registry(&mut self) -> Option<Registry> {
        self.current()?.registry.clone()
    }

    /// Notes that a timer of the running process fires at `deadline`.
    pub(super) fn note_timer(&mut self, deadline: Instant) -> Option<u32> {
        let process = self.current?;
        let local = self.processes[process].local_time_of(deadline)?;
        let at = self.processes[process].clock.true_time_of(local);
        let timer = u32::try_from(self.timers.len()).ok()?;
        self.timers.push(true);
        self.at(at, Event::Timer { process, timer: Some(timer), local });
        Some(timer)
    }

    /// Schedules a timer again if the process was suspended meanwhile. Returns whether it was.
    pub(super) fn postpone(
        &mut self,
        process: ProcessId,
        timer: Option<u32>,
        local: Nanos,
    ) -> bool {
        let at = self.processes[process].clock.true_time_of(local);
        let is_early = at > self.now;
        if is_early {
            self.at(at, Event::Timer { process, timer, local });
        }
        is_early
    }

    /// Schedules a run of a process whose timers may have fired, if that is at `limit` at the latest. Returns whether it
    /// did.
    pub(super) fn run_what_may_have_fired(&mut self, id: ProcessId, limit: Nanos) -> bool {
        let process = &mut self.processes[id];
        let local = process.clock.advanced();
        let at = process.clock.true_time_of(local);
        let is_due = process.looked == Looked::MayHaveFired && at <= limit;
        if is_due {
            process.looked = Looked::IsScheduled;
            self.at(at, Event::Timer { process: id, timer: None, local });
        }
        is_due
    }

    pub(super) fn withdraw_timer(&mut self, timer: u32) {
        self.timers[timer as usize] = false;
    }

    /// Adds a line to the timeline, if it is recorded.
    pub(super) fn note(&mut self, process: Option<ProcessId>, text: impl FnOnce() -> String) {
        self.note_as(Kind::Other, process, text);
    }

    pub(super) fn note_as(
        &mut self,
        kind: Kind,
        process: Option<ProcessId>,
        text: impl FnOnce() -> String,
    ) {
        if self.trace.is_recording() {
            let process = process.map(|id| self.processes[id].name.clone());
            self.trace.note(Note { at: self.now, process, kind, text: text() });
        }
    }
}
