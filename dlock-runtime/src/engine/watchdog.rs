//! The watchdog: one task per engine and runtime that renews every lease in time, and ends the
//! holds that have expired or exceeded their `max_hold`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use std::panic::AssertUnwindSafe;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::hold::{Hold, InFlight, Renewed, Step};
use super::telemetry;
use crate::backend::{Backend, Renewal};
use crate::clock::Moment;
use crate::error::BackendError;

/// Renewals that are due within this time of each other are sent together.
const BATCH_WINDOW: Duration = Duration::from_millis(50);

/// The watchdogs of one engine, one per runtime that acquires locks through it. Instants of two
/// runtimes cannot be compared, and a task dies with its runtime.
#[derive(Debug, Default)]
pub(crate) struct Watchdogs(Mutex<Vec<Arc<Watchdog>>>);

impl Watchdogs {
    /// Returns the watchdog of this runtime, and starts it on first use.
    pub(crate) fn of(&self, runtime: &Handle) -> Arc<Watchdog> {
        let id = runtime.id();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.iter().find(|watchdog| watchdog.runtime == id && watchdog.alive())
        {
            return Arc::clone(found);
        }
        all.retain(|watchdog| watchdog.alive());
        let started = Watchdog::start(runtime);
        all.push(Arc::clone(&started));
        started
    }
}

impl Drop for Watchdogs {
    fn drop(&mut self) {
        for watchdog in self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            if let Some(task) = watchdog.schedule().task.take() {
                task.abort();
            }
        }
    }
}

/// One watchdog and its schedule.
#[derive(Debug)]
pub(crate) struct Watchdog {
    runtime: Id,
    schedule: Mutex<Schedule>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Schedule {
    /// By due time, then by the hold's number. Each hold stores its own due time in
    /// `Hold::scheduled`.
    due: BTreeMap<(Instant, u64), Weak<Hold>>,
    /// The instant the task sleeps until. Removing a hold does not postpone it, so a steady stream of
    /// short holds wakes the task a few times per ttl instead of at every acquire.
    armed: Option<Instant>,
    task: Option<AbortHandle>,
    dead: bool,
}

impl Watchdog {
    fn start(runtime: &Handle) -> Arc<Self> {
        let watchdog = Arc::new(Self {
            runtime: runtime.id(),
            schedule: Mutex::default(),
            wake: Notify::new(),
        });
        let task = runtime.spawn(WatchdogTask(Arc::clone(&watchdog)).run());
        watchdog.schedule().task = Some(task.abort_handle());
        watchdog
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> bool {
        let schedule = self.schedule();
        !schedule.dead && schedule.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Adds a new hold to the schedule.
    pub(crate) fn add(&self, hold: &Arc<Hold>) {
        let due = hold.due_at();
        let mut schedule = self.schedule();
        if schedule.dead {
            drop(schedule);
            hold.end_unattended();
            return;
        }
        schedule.put(hold, due);
        let earlier = schedule.armed.is_none_or(|armed| due < armed);
        drop(schedule);
        if earlier {
            self.wake.notify_one();
        }
    }

    /// Removes a hold from the schedule.
    pub(crate) fn forget(&self, hold: &Hold) {
        let mut schedule = self.schedule();
        if let Some(due) = hold.reschedule(None) {
            schedule.due.remove(&(due, hold.number));
        }
    }

    /// Schedules another check of the hold at `due`, unless it has been forgotten meanwhile.
    fn check_again(&self, hold: &Arc<Hold>, due: Instant) {
        let mut schedule = self.schedule();
        if hold.is_scheduled() {
            schedule.put(hold, due);
        }
    }

    /// Takes the holds that are due. Each stays marked as scheduled, so that a `forget` in the
    /// meantime is noticed.
    fn take_due(&self, now: Instant) -> Vec<Arc<Hold>> {
        let mut schedule = self.schedule();
        let later = schedule.due.split_off(&(now + BATCH_WINDOW, 0));
        let due = std::mem::replace(&mut schedule.due, later);
        due.into_values().filter_map(|hold| hold.upgrade()).collect()
    }

    fn arm(&self) -> Option<Instant> {
        let mut schedule = self.schedule();
        schedule.armed = schedule.due.first_key_value().map(|((due, _), _)| *due);
        schedule.armed
    }
}

impl Schedule {
    fn put(&mut self, hold: &Arc<Hold>, due: Instant) {
        if let Some(old) = hold.reschedule(Some(due)) {
            self.due.remove(&(old, hold.number));
        }
        self.due.insert((due, hold.number), Arc::downgrade(hold));
    }
}

/// The running task. When it ends, for whatever reason, its holds end too, because nothing would
/// renew them.
struct WatchdogTask(Arc<Watchdog>);

impl WatchdogTask {
    async fn run(self) {
        let mut renewals = FuturesUnordered::new();
        loop {
            for hold in self.0.take_due(Instant::now()) {
                match hold.step(Instant::now(), BATCH_WINDOW) {
                    Step::Renew => {
                        // Even if the renewal hangs, the hold must end in time.
                        self.0.check_again(&hold, hold.ends_at());
                        let in_flight = InFlight::new(Arc::clone(&hold));
                        renewals.push(renew(hold, in_flight));
                    }
                    Step::Wait(due) => self.0.check_again(&hold, due),
                    Step::Nothing => self.0.forget(&hold),
                }
            }
            let armed = self.0.arm();
            tokio::select! {
                () = until(armed) => {}
                () = self.0.wake.notified() => {}
                Some((hold, step)) = renewals.next(), if !renewals.is_empty() => match step {
                    Step::Wait(due) => self.0.check_again(&hold, due),
                    Step::Renew | Step::Nothing => self.0.forget(&hold),
                },
            }
        }
    }
}

impl Drop for WatchdogTask {
    fn drop(&mut self) {
        let mut schedule = self.0.schedule();
        schedule.dead = true;
        let holds: Vec<_> = std::mem::take(&mut schedule.due).into_values().collect();
        drop(schedule);
        for hold in holds.iter().filter_map(Weak::upgrade) {
            hold.end_unattended();
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Renews a hold at once, outside of its schedule.
pub(super) async fn renew_now(hold: Arc<Hold>, in_flight: InFlight) {
    let (hold, step) = renew(hold, in_flight).await;
    if let Step::Wait(due) = step {
        let watchdog = Arc::clone(&hold.watchdog);
        watchdog.check_again(&hold, due);
        watchdog.wake.notify_one();
    }
}

async fn renew(hold: Arc<Hold>, in_flight: InFlight) -> (Arc<Hold>, Step) {
    let sent = Moment::now();
    // The call itself is inside, because a backend that panics there must not affect other holds.
    let renewal = AssertUnwindSafe(async { hold.backend.store.renew(&hold.claim).await });
    let answer = tokio::time::timeout(hold.attempt_timeout(), renewal.catch_unwind()).await;
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panic)) => Err(BackendError::transient("the backend panicked in a renewal")),
        Err(_) => Err(BackendError::transient("the backend did not answer a renewal in time")),
    };
    let renewed = match answer {
        Ok(Renewal::Renewed { validity }) => Renewed::For(validity),
        Ok(Renewal::NotHeld) => Renewed::NotHeld,
        Err(error) => {
            telemetry::renewal_failed(
                hold.labels(),
                &hold.backend.failures,
                hold.remaining(),
                &error,
            );
            Renewed::Failed { executed: error.may_have_been_sent() }
        }
    };
    let step = in_flight.settle(sent, renewed);
    (hold, step)
}
