//! Running one schedule from its beginning to its end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Once};
use std::time::Duration;

use super::faults::{Allowed, Ask, FaultOptions, Faults};
use super::instance::{Looked, ProcessId, Status};
use super::timeline::Timeline;
use super::trace::Trace;
use super::world::{self, Event, World};
use super::{Nanos, host, nanos, process};

/// A scenario of the user's: called once for each schedule.
pub(super) type Scenario = Arc<dyn Fn() -> BoxFuture + Send + Sync>;

pub(super) type BoxFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// How schedules are run.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) faults: FaultOptions,
    pub(super) max_time: Duration,
    pub(super) max_steps: u64,
    /// Whether processes may use tokio's own timers, which the simulation has to look for.
    pub(super) tokio_timers: bool,
}

/// How a schedule ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// What went wrong.
    pub(super) violation: Option<String>,
    pub(super) hash: u64,
    pub(super) steps: u64,
    pub(super) simulated: Duration,
    /// The faults that happened.
    pub(super) faults: BTreeSet<u32>,
    /// Empty unless it was recorded.
    pub(super) timeline: Timeline,
}

/// How far ahead of the other events a process's own timers are looked for, at first and, as long as nothing happens, at
/// most. A process may run late by as much.
const LOOK_AHEAD: Range<Nanos> = 20_000_000..80_000_000;

/// What comes between the message of a panic and where it was.
pub(super) const PLACE: &str = ", at ";

thread_local! {
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs the schedule of this seed.
pub(super) fn run(
    seed: u64,
    settings: &Settings,
    allowed: Allowed,
    records: bool,
    scenario: &Scenario,
) -> Ended {
    catch_panics();
    let trace = if records { Trace::recorded() } else { Trace::hashed() };
    let faults = Faults::new(seed, settings.faults.clone(), allowed);
    world::install(World::new(seed, faults, trace));
    IS_RUNNING.set(true);
    let violation = play(settings, scenario);
    // What happens while everything is dropped is no part of the schedule.
    IS_RUNNING.set(false);
    let panic = PANIC.take();
    let world = world::uninstall().expect("installed above");
    Ended {
        violation: panic.or(violation),
        hash: world.trace.hash(),
        steps: world.steps,
        simulated: Duration::from_nanos(world.now),
        faults: world.faults.happened().clone(),
        timeline: world.trace.into_timeline(),
    }
}

/// Returns what went wrong, other than a panic.
fn play(settings: &Settings, scenario: &Scenario) -> Option<String> {
    let scenario = Arc::clone(scenario);
    let main = process::start_scenario(move || scenario());
    world::with(World::schedule_faults);
    let (max_time, max_steps) = (nanos(settings.max_time), settings.max_steps);
    loop {
        if PANIC.with_borrow(Option::is_some) || main.is_finished() {
            return None;
        }
        if let Some(ready) = world::with(World::next_ready) {
            drive(ready);
            continue;
        }
        if settings.tokio_timers {
            look_for_timers();
        }
        match world::with(World::take_next) {
            Some(event) => happen(event),
            None => return Some("nothing is left to happen, but the scenario waits".to_owned()),
        }
        let (now, steps) = world::with(|world| (world.now, world.steps));
        if now > max_time || steps > max_steps {
            return Some(format!(
                "the scenario has not ended after {:?} and {steps} steps",
                Duration::from_nanos(now)
            ));
        }
    }
}

/// Runs a process until all of it waits.
fn drive(id: ProcessId) {
    let Some((machine, advance)) = world::with(|world| world.enter(id)) else { return };
    machine.run(advance);
    world::with(|world| world.current = None);
}

fn happen(event: Event) {
    match event {
        Event::Request { host, epoch, from, call, request } => {
            mark(1, from);
            host::arrive(host, epoch, from, call, &request);
        }
        Event::Reply { to, call, reply } => {
            mark(2, to);
            let reply = Event::Reply { to, call, reply };
            world::with(|world| {
                if let Some(Event::Reply { call, reply, .. }) = world.hold_back(to, reply) {
                    world.calls.answer(call, reply);
                }
            });
        }
        Event::Notice { to, watch } => {
            mark(3, to);
            let notice = Event::Notice { to, watch };
            world::with(|world| {
                if world.hold_back(to, notice).is_some() {
                    world.calls.notify(watch);
                }
            });
        }
        Event::Timer { process, timer, local } => {
            let event = Event::Timer { process, timer, local };
            let is_due = world::with(|world| {
                world.hold_back(process, event).is_some() && !world.postpone(process, timer, local)
            });
            if is_due {
                mark(4, process);
                drive(process);
            }
        }
        Event::Pause { process, length } => {
            mark(5, process);
            world::with(|world| world.pause(process, length, false));
        }
        Event::Resume { process } => {
            mark(6, process);
            world::with(|world| world.resume(process)).into_iter().for_each(happen);
            drive(process);
        }
        Event::Kill { process } => {
            mark(7, process);
            process::kill_now(process);
        }
        Event::Restart { process } => {
            mark(8, process);
            let again = world::with(|world| world.processes[process].again.clone());
            if let Some(again) = again {
                again();
            }
        }
        Event::Fault => match world::with(World::fault) {
            Ask::Nothing => {}
            Ask::Kill(process) => process::kill_now(process),
        },
        Event::Calm => world::with(World::calm),
    }
}

/// Adds an event to the hash of the trace.
fn mark(kind: u64, process: ProcessId) {
    world::with(|world| {
        let now = world.now;
        world.trace.mix(now);
        world.trace.mix(kind << 32 | process as u64);
    });
}

/// Finds timers of tokio that fire before the next event, and schedules them.
fn look_for_timers() {
    let mut ahead = LOOK_AHEAD.start;
    loop {
        let (now, next, count) =
            world::with(|world| (world.now, world.next_at(), world.processes.len()));
        let most = now + ahead;
        ahead = (ahead * 2).min(LOOK_AHEAD.end);
        let limit = next.map_or(most, |next| next.min(most));
        let mut found = false;
        for id in 0..count {
            let next = world::with(World::next_at);
            found |= look(id, next.map_or(limit, |next| next.min(limit)));
        }
        // Nothing until then. Where nothing is going to happen at all, a timer may still be further away.
        if found || next.is_some_and(|next| next <= limit) || limit > nanos(Duration::from_hours(1))
        {
            return;
        }
        world::with(|world| world.now = limit);
    }
}

/// Lets a machine's clock advance to its next timer before `limit`. Schedules that, if there is one.
fn look(id: ProcessId, limit: Nanos) -> bool {
    if world::with(|world| world.run_what_may_have_fired(id, limit)) {
        return true;
    }
    let ahead = world::with(|world| {
        let process = &world.processes[id];
        // What has fired must run before anything else does, by an event.
        let may_look = process.status == Status::Running && process.looked == Looked::Not;
        let machine = process.machine.clone().filter(|machine| may_look && machine.has_tasks())?;
        Some((machine, process.clock.behind(limit)))
    });
    let Some((machine, ahead)) = ahead.filter(|(_, ahead)| *ahead > 0) else { return false };
    let by = machine.advance_to_timer(ahead);
    world::with(|world| {
        let process = &mut world.processes[id];
        process.clock.has_advanced(by);
        // Another timer may have fired at the very millisecond at which the look ended.
        process.looked = Looked::MayHaveFired;
        by < ahead && world.run_what_may_have_fired(id, limit)
    })
}

/// Makes every panic in a schedule a violation, once for all threads.
fn catch_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_RUNNING.try_with(Cell::get).unwrap_or(false) {
                return others(panic);
            }
            let message = panic.payload_as_str().unwrap_or("a panic without a message");
            let at = panic.location().map(|at| format!("{PLACE}{}:{}", at.file(), at.line()));
            let message = format!("{message}{}", at.unwrap_or_default());
            PANIC.with_borrow_mut(|first| first.get_or_insert(message).len());
        }));
    });
}
