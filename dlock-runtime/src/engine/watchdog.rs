//! The watchdog: one task per engine and runtime that renews every lease in time, and ends the
//! holds that have expired or exceeded their `max_hold`.

mod renewals;
mod wheel;

use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::renewals::{Batches, renew};
use self::wheel::Wheel;
use super::hold::{Hold, InFlight, Step};
use super::passing;
use crate::clock::{self, Moment};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, Notify};
use crate::timer;

/// Holds that are due within this time of each other are checked together.
const WINDOW: Duration = Duration::from_millis(50);

/// The watchdogs of one engine, one per runtime that acquires locks through it. Instants of two
/// runtimes cannot be compared, and a task dies with its runtime.
#[derive(Debug, Default)]
pub(crate) struct Watchdogs {
    /// Most processes have only one, which is found without a mutex.
    first: OnceLock<Arc<Watchdog>>,
    others: Mutex<Vec<Arc<Watchdog>>>,
}

impl Watchdogs {
    /// Returns the watchdog of this runtime, and starts it on first use.
    pub(crate) fn of(&self, runtime: &Handle) -> Arc<Watchdog> {
        let id = runtime.id();
        let serves = |watchdog: &&Arc<Watchdog>| watchdog.runtime.id() == id && watchdog.alive();
        if let Some(first) = self.first.get().filter(serves) {
            return Arc::clone(first);
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.first.get().into_iter().chain(&*others).find(serves) {
            return Arc::clone(found);
        }
        others.retain(|watchdog| watchdog.alive());
        let started = Watchdog::start(runtime);
        if self.first.set(Arc::clone(&started)).is_err() {
            others.push(Arc::clone(&started));
        }
        started
    }
}

impl Watchdogs {
    /// Every hold that is attended to.
    pub(crate) fn holds(&self) -> Vec<Arc<Hold>> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.first.get().into_iter().chain(&*others);
        let mut holds = vec![];
        for watchdog in all {
            holds.extend(watchdog.schedule().due.all().filter_map(Weak::upgrade));
        }
        holds
    }
}

impl Drop for Watchdogs {
    fn drop(&mut self) {
        let others = self.others.get_mut().unwrap_or_else(PoisonError::into_inner);
        for watchdog in self.first.get().into_iter().chain(&*others) {
            if let Some(task) = watchdog.schedule().task.take() {
                task.abort();
            }
        }
    }
}

/// One watchdog and its schedule.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Where it runs, and with it other background work for its holds.
    pub(crate) runtime: Handle,
    schedule: Mutex<Schedule>,
    wake: Notify,
    /// Set when the task ends.
    dead: AtomicBool,
}

#[derive(Debug)]
struct Schedule {
    /// Each hold stores its own place, see [`Hold::place`].
    due: Wheel<Weak<Hold>>,
    /// The instant the task sleeps until. Removing a hold does not postpone it, so a steady stream of
    /// short holds wakes the task a few times per ttl instead of at every acquire.
    armed: Option<Instant>,
    /// Whether a hold was added since the task was armed.
    added: bool,
    task: Option<AbortHandle>,
    dead: bool,
    /// A moment at which tokio's clock was not paused, or `None` if it was paused when that was last found out.
    running: Option<Moment>,
}

impl Watchdog {
    fn start(runtime: &Handle) -> Arc<Self> {
        let watchdog = Arc::new(Self::new(runtime));
        let task = runtime.spawn(watchdog.task());
        watchdog.schedule().task = Some(task.abort_handle());
        watchdog
    }

    /// A watchdog whose [`task`](Self::task) has not started.
    pub(crate) fn new(runtime: &Handle) -> Self {
        let schedule = Schedule {
            due: Wheel::new(clock::instant()),
            armed: None,
            added: false,
            task: None,
            dead: false,
            running: clock::unless_paused(),
        };
        Self {
            runtime: runtime.clone(),
            schedule: Mutex::new(schedule),
            wake: Notify::new(),
            dead: AtomicBool::new(false),
        }
    }

    /// Attends to the holds until it is dropped.
    pub(crate) fn task(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        WatchdogTask(Arc::clone(self)).run()
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> bool {
        !self.dead.load(Ordering::Acquire)
    }

    /// Adds a new hold, which is due at this instant, to the schedule.
    pub(crate) fn add(&self, hold: &Arc<Hold>, due: Instant) {
        let mut schedule = self.schedule();
        if schedule.dead {
            drop(schedule);
            hold.end_unattended();
            return;
        }
        let place = schedule.due.add(Arc::downgrade(hold), due);
        schedule.added = true;
        hold.set_place(Some(place));
        let earlier = schedule.armed.is_none_or(|armed| due < armed);
        if !schedule.is_clock_running(hold.since()) {
            hold.distrust_boot_clock();
        }
        drop(schedule);
        if earlier {
            self.wake.notify_one();
        }
    }

    /// Removes a hold from the schedule.
    pub(crate) fn forget(&self, hold: &Hold) {
        let mut schedule = self.schedule();
        if let Some(place) = hold.place().filter(|_| !schedule.dead) {
            hold.set_place(None);
            schedule.due.remove(place);
        }
    }

    /// Schedules another check of the hold at `due`. False if it has been forgotten meanwhile, or if nothing is checked
    /// any more.
    pub(super) fn check_again(&self, hold: &Hold, due: Instant) -> bool {
        let mut schedule = self.schedule();
        let Some(place) = hold.place().filter(|_| !schedule.dead) else { return false };
        schedule.due.put(place, due);
        let earlier = schedule.armed.is_none_or(|armed| due < armed);
        drop(schedule);
        if earlier {
            self.wake.notify_one();
        }
        true
    }

    fn follow(&self, hold: &Arc<Hold>, step: &Step) {
        match step {
            Step::Wait(due) => {
                self.check_again(hold, *due);
                // Its lease may have been sent off since that step, and is to be recalled earlier.
                if let Some(recall) = hold.recall_at().filter(|recall| recall < due) {
                    self.check_again(hold, recall);
                }
            }
            Step::Recall => {
                self.forget(hold);
                passing::recall(hold);
            }
            Step::Renew | Step::Nothing => self.forget(hold),
        }
    }

    /// Takes the holds that are due. Each keeps its place, so that a `forget` in the meantime is noticed.
    fn take_due(&self, now: Instant) -> Vec<Arc<Hold>> {
        let mut due = vec![];
        let mut schedule = self.schedule();
        // The task is awake and looks again before it sleeps.
        schedule.armed = Some(now);
        schedule.due.take_until(now + WINDOW, |hold| due.extend(hold.upgrade()));
        due
    }

    /// Returns up to `limit` holds that are due before `horizon`, and leaves them in the schedule.
    fn due_soon(&self, horizon: Instant, limit: usize) -> Vec<Arc<Hold>> {
        let mut soon = vec![];
        self.schedule().due.show_until(horizon, limit, |hold| soon.extend(hold.upgrade()));
        soon
    }

    fn arm(&self) -> Option<Instant> {
        let mut schedule = self.schedule();
        let was_added = std::mem::take(&mut schedule.added);
        // Short holds are gone before the task looks for them. It stays armed, or the next one would wake it.
        let linger = was_added.then(|| clock::instant() + LINGER);
        schedule.armed = schedule.due.earliest().or(linger);
        schedule.armed
    }
}

impl Schedule {
    /// Whether tokio's clock is running rather than paused, as far as this moment shows.
    fn is_clock_running(&mut self, moment: &Moment) -> bool {
        match &self.running {
            Some(running) if moment.in_step_with(running) => true,
            // The clock is or was paused, or the machine was suspended: find out.
            _ => {
                self.running = clock::unless_paused();
                self.running.is_some()
            }
        }
    }
}

/// How long the task stays armed after the last hold was added. A hold that is due sooner wakes it.
const LINGER: Duration = Duration::from_secs(1);

/// The running task. When it ends, for whatever reason, its holds end too, because nothing would
/// renew them.
struct WatchdogTask(Arc<Watchdog>);

impl WatchdogTask {
    async fn run(self) {
        let mut renewals = FuturesUnordered::new();
        loop {
            for batch in self.what_is_due(&Moment::now()).take() {
                renewals.push(renew(&self.0, batch));
            }
            let armed = self.0.arm();
            tokio::select! {
                biased;
                Some(()) = renewals.next(), if !renewals.is_empty() => {
                    // Answers that are always ready would keep other tasks from running.
                    tokio::task::yield_now().await;
                }
                () = self.0.wake.notified() => {}
                () = until(armed) => {}
            }
        }
    }

    /// Checks the holds that are due, and collects the renewals to send.
    fn what_is_due(&self, now: &Moment) -> Batches {
        let mut batches = Batches::default();
        let mut slack = Duration::ZERO;
        for hold in self.0.take_due(now.instant()) {
            match hold.step(now) {
                Step::Renew => {
                    slack = slack.max(hold.slack());
                    self.begin(hold, now, &mut batches);
                }
                step => self.0.follow(&hold, &step),
            }
        }
        // A request that is sent anyway takes along what would be sent soon.
        let room = batches.room();
        for hold in self.0.due_soon(now.instant() + slack, room) {
            match hold.step(now) {
                Step::Renew => self.begin(hold, now, &mut batches),
                recall @ Step::Recall => self.0.follow(&hold, &recall),
                // It stays where it is in the schedule.
                Step::Wait(_) | Step::Nothing => {}
            }
        }
        batches
    }

    fn begin(&self, hold: Arc<Hold>, now: &Moment, batches: &mut Batches) {
        // Even if the renewal hangs, the hold must end in time.
        self.0.check_again(&hold, hold.ends_at(now));
        batches.add(InFlight::new(hold));
    }
}

impl Drop for WatchdogTask {
    fn drop(&mut self) {
        self.0.dead.store(true, Ordering::Release);
        let mut schedule = self.0.schedule();
        schedule.dead = true;
        let holds = schedule.due.drain();
        drop(schedule);
        for hold in holds.iter().filter_map(Weak::upgrade) {
            if hold.end_unattended() {
                passing::recall(&hold);
            }
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => timer::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Renews a hold at once, outside of its schedule.
pub(super) async fn renew_now(in_flight: InFlight) {
    let Some(watchdog) = in_flight.hold().map(|hold| Arc::clone(&hold.watchdog)) else { return };
    for batch in Batches::of(in_flight).take() {
        renew(&watchdog, batch).await;
    }
    watchdog.wake.notify_one();
}
