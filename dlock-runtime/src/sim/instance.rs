//! One run of a simulated process: it has a runtime, clocks, random choices and a registry of its own.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::chance::Chance;
use super::local_clock::LocalClock;
use super::machine::Machine;
use super::timeline::Kind;
use super::world::{Event, World};
use super::{Nanos, nanos};
use crate::registry::Registry;

pub(super) type ProcessId = usize;

/// Starts a process again.
pub(super) type Restart = Rc<dyn Fn()>;

/// One run of a simulated process, from its start to its end.
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) status: Status,
    /// `None` after the end.
    pub(super) machine: Option<Rc<Machine>>,
    pub(super) clock: LocalClock,
    pub(super) looked: Looked,
    pub(super) chance: Chance,
    pub(super) registry: Option<Registry>,
    /// The main future. `None` once it is known to have ended.
    pub(super) main: Option<AbortHandle>,
    /// Events that arrive while it is paused.
    held: Vec<Event>,
    /// When it was paused last, and when it went on.
    pub(super) last_pause: (Nanos, Nanos),
    /// Starts it again after it was killed.
    pub(super) again: Option<Restart>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    Paused { suspended_since: Option<Nanos> },
    Dead,
}

/// Whether the clock of a process has been moved on, in search of its next timer, since it ran last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    Not,
    /// A timer may have fired.
    MayHaveFired,
    /// The run that follows is scheduled.
    IsScheduled,
}

impl Instance {
    /// What the monotonic clock shows when a timer with this deadline fires. Tokio's timers fire at whole milliseconds.
    pub(super) fn local_time_of(&self, deadline: Instant) -> Option<Nanos> {
        const MILLISECOND: Nanos = 1_000_000;
        let began = self.machine.as_ref()?.began();
        let local = nanos(deadline.saturating_duration_since(began));
        let local = local.div_ceil(MILLISECOND).checked_mul(MILLISECOND)?;
        // Further away than any schedule lasts.
        (local < Nanos::MAX / 4).then_some(local)
    }

    fn note_pause(&mut self, now: Nanos) {
        const SOON: Nanos = 2_000_000_000;
        // It hardly learns anything between two pauses that follow each other.
        if now.saturating_sub(self.last_pause.1) >= SOON {
            self.last_pause.0 = now;
        }
    }

    /// Ends it. The machine has to be dropped outside of the world.
    pub(super) fn stop(&mut self) -> Option<Rc<Machine>> {
        self.status = Status::Dead;
        self.held.clear();
        self.main = None;
        self.machine.take()
    }

    fn is_finished(&self) -> bool {
        self.main.as_ref().is_none_or(AbortHandle::is_finished)
    }
}

impl World {
    /// Adds a process, which has no machine yet.
    pub(super) fn add_process(&mut self, name: String, is_scenario: bool) -> ProcessId {
        let id = self.processes.len();
        let mut chance = Chance::new(self.seed, 100 + id as u64);
        let rate = if is_scenario { 0 } else { self.faults.drift(&mut chance) };
        self.processes.push(Instance {
            name,
            status: Status::Running,
            machine: None,
            clock: LocalClock::new(self.now, rate),
            looked: Looked::Not,
            chance,
            registry: None,
            main: None,
            held: Vec::new(),
            last_pause: (0, 0),
            again: None,
        });
        id
    }

    /// The processes that a fault may hit. The scenario itself is none of them.
    pub(super) fn vulnerable(&self) -> Vec<ProcessId> {
        let each = self.processes.iter().enumerate().skip(1);
        let alive =
            each.filter(|(_, process)| process.status == Status::Running && !process.is_finished());
        alive.map(|(id, _)| id).collect()
    }

    /// Passes an event on to a process, or keeps it until the process is resumed.
    pub(super) fn hold_back(&mut self, id: ProcessId, event: Event) -> Option<Event> {
        match self.processes[id].status {
            Status::Running => Some(event),
            Status::Dead => None,
            Status::Paused { .. } => {
                self.processes[id].held.push(event);
                None
            }
        }
    }

    /// Stops a process for this long: nothing of it runs. While it is suspended, its monotonic clock stands still too.
    pub(super) fn pause(&mut self, id: ProcessId, length: Nanos, is_suspended: bool) {
        if self.processes[id].status != Status::Running {
            return;
        }
        let how = if is_suspended { "suspended" } else { "paused" };
        self.note_as(Kind::Paused, Some(id), || {
            format!("{how} for {:.1?}", Duration::from_nanos(length))
        });
        let suspended_since = is_suspended.then_some(self.now);
        self.processes[id].note_pause(self.now);
        self.processes[id].status = Status::Paused { suspended_since };
        self.after(length, Event::Resume { process: id });
    }

    /// Resumes a paused process. Returns what has arrived for it meanwhile: the messages first, because a runtime that
    /// resumes has seen all of them before a task of it runs, and only then learns how late it is.
    pub(super) fn resume(&mut self, id: ProcessId) -> Vec<Event> {
        let now = self.now;
        let process = &mut self.processes[id];
        let Status::Paused { suspended_since } = process.status else { return Vec::new() };
        if let Some(since) = suspended_since {
            process.clock.resume(since, now);
        }
        process.status = Status::Running;
        process.last_pause.1 = now;
        let mut held = std::mem::take(&mut process.held);
        held.sort_by_key(|event| matches!(event, Event::Timer { .. }));
        self.note_as(Kind::Resumed, Some(id), || "resumed".to_owned());
        held
    }
}
