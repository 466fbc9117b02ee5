//! One hold: the lease, the proof that it is still valid, and how it ends.

mod children;
mod closing;
mod extension;
mod renewal;
mod states;
mod terms;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::contention::LocalHolder;
use super::local_queue::Turn;
use super::passing::{Allowance, Passable};
use super::release::{Abandoned, abandon_later};
use super::request::Request;
use super::telemetry::{self, Labels};
use super::watchdog::Watchdog;
use super::{Engine, NamedBackend};
use crate::backend::{Backend as _, Claim, Mode, Release, without_grace};
use crate::clock::{BootTime, Moment};
use crate::error::{LockError, LostReason};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, Notified, Notify};
use crate::timer;
use crate::token::FencingToken;

use self::children::Children;
pub(crate) use self::closing::Closing;
pub(crate) use self::renewal::{InFlight, Renewed, Step};
pub use self::states::{HoldState, States};
use self::terms::Terms;

/// One caller's turn under a lease that this process holds or has held.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) engine: Arc<Engine>,
    /// Small, because there are many holds.
    backend_index: u16,
    /// Of the lease. Its token is the largest one of the lease's block.
    pub(crate) claim: Claim,
    /// Of this hold.
    pub(crate) token: FencingToken,
    /// The low-cardinality name for traces and metrics.
    pub(crate) template: &'static str,
    terms: Terms,
    /// Renews it, in the runtime in which it was acquired.
    pub(crate) watchdog: Arc<Watchdog>,
    state: Mutex<State>,
    /// Until when the lease is provably ours and within its limits, by the boot clock alone and in nanoseconds: then
    /// no check needs the state. Zero if the state has to be checked. Changed only under the lock of the state.
    fine_until: AtomicU64,
    /// A shutdown waits for this hold.
    is_open: AtomicBool,
    /// Tasks were spawned under this hold, or its token was asked for. Set under the lock of the state.
    has_children: AtomicBool,
    /// Where this hold is in its watchdog's schedule, or `NO_PLACE`. Changed only under that schedule's lock.
    place: AtomicU32,
    /// Notified when the hold ends, when a body under it ends, and when a renewal in flight finishes for which
    /// somebody waits.
    changed: Notify,
}

const NO_PLACE: u32 = u32::MAX;

#[derive(Debug)]
struct State {
    /// The lease is provably ours while `proved.elapsed() < validity`.
    proved: Moment,
    validity: Duration,
    phase: Phase,
    renewal: Renewing,
    /// How many renewals have succeeded.
    renewals: u8,
    /// The boot clock alone shows whether the lease is valid, because tokio's clock is not paused.
    trusts_boot_clock: bool,
    /// When the next renewal is due. While the lease is on its way to the next task: when it is released instead.
    renew_at: Instant,
    failures: u8,
    rare: Option<Box<Rare>>,
    /// Whether the lease may be passed on to the next task of the local queue. Boxed, because most leases are not.
    allowance: Option<Box<Allowance>>,
    /// The front of the local queue, if the hold is exclusive. Passed on when the lease ends, because from then on
    /// the store decides who is next.
    turn: Option<Turn>,
    /// The store may still execute a request of this claim, even after its release: an acquire that was abandoned
    /// before the granted one, or a renewal that was not answered.
    in_doubt: bool,
}

/// What few holds have, in a box, because there are many holds.
#[derive(Debug, Default)]
struct Rare {
    /// The age at which every `min_hold` of this hold and of its nested calls has passed.
    keep_until_age: Duration,
    /// The age until which the owner has extended the hold.
    extended_to_age: Duration,
    children: Option<Children>,
}

/// Whether a renewal is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewing {
    No,
    InFlight,
    /// Somebody waits for its end, although the hold goes on.
    Awaited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Held,
    Ended(Ending),
    /// The owner is releasing it, or the lease has been passed on. No renewal starts any more.
    Closing,
    /// The same, while the lease is on its way to the next task.
    Passing,
}

/// How a hold ended before its owner released it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Lost(LostReason),
    /// The hold exceeded this `max_hold`.
    HeldTooLong(Duration),
    /// The process is shutting down, and the time for its bodies is over.
    ShutDown,
}

impl Ending {
    /// Whether the lease is still ours, and only its body was stopped.
    pub(crate) fn is_held(self) -> bool {
        matches!(self, Self::HeldTooLong(_) | Self::ShutDown)
    }
}

/// What a hold begins with.
pub(crate) struct Granted {
    /// Of the lease. Its token is the largest one of the lease's block.
    pub(crate) claim: Claim,
    pub(crate) token: FencingToken,
    /// When the hold began: taken before the granted request was sent, or when the lease was passed on.
    pub(crate) since: Moment,
    /// Taken before the last request was sent that granted or renewed the lease.
    pub(crate) proved: Moment,
    pub(crate) validity: Duration,
    /// An earlier request of the claim may still be executed.
    pub(crate) in_doubt: bool,
    /// The lease comes from the task before in the local queue.
    pub(crate) is_passed: bool,
    pub(crate) allowance: Option<Box<Allowance>>,
    pub(crate) turn: Option<Turn>,
}

impl State {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn keep_until_age(&self) -> Duration {
        self.rare.as_ref().map(|rare| rare.keep_until_age).unwrap_or_default()
    }

    /// Keeps the lease at least until this age, even if it is released before.
    fn keep_until(&mut self, age: Duration) {
        let rare = self.rare();
        rare.keep_until_age = rare.keep_until_age.max(age);
    }

    fn extended_to_age(&self) -> Duration {
        self.rare.as_ref().map(|rare| rare.extended_to_age).unwrap_or_default()
    }

    fn children(&self) -> Option<&Children> {
        self.rare.as_ref()?.children.as_ref()
    }

    fn is_renewing(&self) -> bool {
        self.renewal != Renewing::No
    }
}

impl Hold {
    /// Begins a hold. The watchdog renews it from here on.
    pub(crate) fn begin(
        engine: &Arc<Engine>,
        request: &Request<'_>,
        granted: Granted,
        watchdog: Arc<Watchdog>,
    ) -> Arc<Self> {
        let is_passed = granted.is_passed;
        let Granted { claim, token, since, proved, validity, in_doubt, allowance, turn, .. } =
            granted;
        let mut state = State {
            proved,
            validity,
            phase: Phase::Held,
            renewal: Renewing::No,
            renewals: 0,
            trusts_boot_clock: true,
            renew_at: proved.after(renewal::pause_before(&claim.owner, 0, request.ttl, validity)),
            failures: 0,
            rare: None,
            allowance,
            turn,
            in_doubt,
        };
        if let Some(min_hold) = request.options.min_hold {
            state.keep_until(min_hold);
        }
        engine.open_holds.add();
        let terms = Terms {
            since,
            ttl: request.ttl,
            renew: request.options.renew,
            max_hold: request.options.max_hold,
            session: request.backend.capabilities.session,
        };
        let due = terms.next_due(&state, &since);
        let fine_until = terms.fine_until(&state).nanos();
        let hold = Arc::new(Self {
            engine: Arc::clone(engine),
            backend_index: u16::try_from(request.backend.index).expect("few backends"),
            claim,
            token,
            template: request.template,
            terms,
            watchdog,
            state: Mutex::new(state),
            fine_until: AtomicU64::new(fine_until),
            is_open: AtomicBool::new(true),
            has_children: AtomicBool::new(false),
            place: AtomicU32::new(NO_PLACE),
            changed: Notify::new(),
        });
        #[cfg(feature = "sim")]
        crate::sim::note_acquired(&hold.claim.key, hold.token, hold.terms.ttl);
        hold.watchdog.add(&hold, due);
        telemetry::hold_began(hold.labels(), is_passed);
        // Where others may hold the key too, waiting for this one hold is not what they do. One that is passed on has been
        // noted together with the end of its wait.
        if hold.claim.mode == Mode::Exclusive && !is_passed {
            let holder = LocalHolder { site: request.site(), token };
            engine.contended.note_hold(request.backend.index, &hold.claim.key, holder);
        }
        hold
    }

    pub(crate) fn backend(&self) -> &Arc<NamedBackend> {
        &self.engine.backends[usize::from(self.backend_index)]
    }

    /// When it began: taken before the granted request was sent, or when the lease was passed on.
    pub(crate) fn since(&self) -> &Moment {
        &self.terms.since
    }

    /// For how much longer than its proof the store keeps a lease that is not released.
    pub(crate) fn grace(&self) -> Duration {
        self.claim.ttl.saturating_sub(self.terms.ttl)
    }

    /// The validity of the hold if its lease has this one.
    pub(crate) fn validity_of(&self, of_lease: Duration) -> Duration {
        let grace = self.grace();
        if grace.is_zero() { of_lease } else { without_grace(of_lease, self.terms.ttl, grace) }
    }

    /// How long it has been held.
    pub(crate) fn age(&self) -> Duration {
        self.terms.since.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the hold if its time was up at `now`, then applies `change`. If the hold has ended, the next task in the
    /// local queue may ask the store.
    fn settled<R>(&self, now: &Moment, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state();
        self.settle(&mut state, now);
        let result = change(&mut state);
        self.note_fine(&state);
        let ended = matches!(state.phase, Phase::Ended(_));
        let turn = state.turn.take_if(|_| ended);
        let children = if ended { state.children().cloned() } else { None };
        // Dropping the turn wakes the next task, and stopping the children wakes them. Neither must happen under the lock.
        drop(state);
        drop(turn);
        if let Some(children) = children {
            children.stop();
        }
        result
    }

    /// Checks that the lease is provably valid and the hold within its limits.
    pub(crate) fn check(&self) -> Result<(), Ending> {
        if self.is_fine() {
            return Ok(());
        }
        self.settled(&Moment::now(), |state| match state.phase {
            Phase::Held => Ok(()),
            Phase::Ended(ending) => Err(ending),
            // The owner is gone. Only a nested call that entered under this hold can still ask.
            Phase::Closing | Phase::Passing => Err(Ending::Lost(LostReason::OuterClosed)),
        })
    }

    /// Whether one clock shows that the lease is valid and the hold within its limits. If not, they may still be.
    fn is_fine(&self) -> bool {
        // Loaded after the clock was read, so that no end before that reading is missed.
        BootTime::now().nanos() < self.fine_until.load(Ordering::Acquire)
    }

    /// From now on, the boot clock alone does not show whether the lease is valid.
    pub(crate) fn distrust_boot_clock(&self) {
        let mut state = self.state();
        state.trusts_boot_clock = false;
        self.note_fine(&state);
    }

    /// Notes until when `check` needs no look at the state.
    fn note_fine(&self, state: &State) {
        self.fine_until.store(self.terms.fine_until(state).nanos(), Ordering::Release);
    }

    /// Ends the hold if its time was up at `now`. A loss takes precedence over `max_hold`, because somebody else
    /// may hold the lease by now.
    fn settle(&self, state: &mut State, now: &Moment) {
        if state.phase != Phase::Held {
            return;
        }
        let age = self.terms.since.age_at(now);
        if state.proved.age_at(now) >= state.validity
            || self.terms.expires_at_age(state).is_some_and(|limit| age >= limit)
        {
            self.end(state, Ending::Lost(LostReason::Expired));
        } else if let Some(limit) = self.terms.max_age(state)
            && age >= limit
        {
            self.end(state, Ending::HeldTooLong(limit));
        }
    }

    fn end(&self, state: &mut State, ending: Ending) {
        state.phase = Phase::Ended(ending);
        self.begin_grace(state);
        // Before anybody is woken or told: from here on, no check may answer that the hold is fine.
        self.note_fine(state);
        self.changed.notify_waiters();
        if self.claim.mode == Mode::Exclusive {
            self.engine.contended.note_release(self.backend().index, &self.claim.key);
        }
        // The store would keep it as long as its session lives.
        match ending {
            // The proof may still last, and the body is still to be stopped. Its owner then releases the lock.
            Ending::Lost(LostReason::NotHeld) | Ending::HeldTooLong(_) if self.terms.session => {
                self.abandon_when_unproved(state);
            }
            Ending::Lost(_) if self.terms.session => self.abandon(),
            Ending::Lost(_) | Ending::HeldTooLong(_) | Ending::ShutDown => {}
        }
        match ending {
            Ending::Lost(loss) => telemetry::lost(self.labels(), self.token, self.age(), loss),
            Ending::HeldTooLong(max_hold) => {
                telemetry::held_too_long(self.labels(), self.token, max_hold);
            }
            Ending::ShutDown => telemetry::shut_down(self.labels(), self.token),
        }
    }

    /// Keeps the lease for its grace from now on: the body is stopped wherever it is, and what it has sent may still be
    /// executed.
    fn begin_grace(&self, state: &mut State) {
        if !self.grace().is_zero() {
            state.keep_until(self.age() + self.grace());
        }
    }

    /// The same, for a body that was dropped or has panicked.
    pub(crate) fn keep_for_grace(&self) {
        if !self.grace().is_zero() {
            self.begin_grace(&mut self.state());
        }
    }

    fn abandon(&self) {
        let abandoned = Abandoned { claim: self.claim.clone(), late_acquire: true };
        abandon_later(&self.engine, self.backend(), abandoned, &self.watchdog.runtime, None);
    }

    /// Releases the lease when its proof ends, in case its owner has not done so by then: it is not polled any more.
    fn abandon_when_unproved(&self, state: &State) {
        let (backend, claim) = (Arc::clone(self.backend()), self.claim.clone());
        let unproved_at = state.proved.after(state.validity);
        let shut_down = self.engine.shut_down.clone();
        self.watchdog.runtime.spawn(async move {
            tokio::select! {
                // The owner's release is awaited, or the session ends with this process.
                () = shut_down.cancelled() => {}
                () = timer::sleep_until(unproved_at) => {
                    let release = Release { keep_for: None, late_acquire: true };
                    let _ = backend.store.release(&claim, release).await;
                }
            }
        });
    }

    /// Ends the hold because its watchdog is gone, unless it has ended or is being released. True if its lease was on its
    /// way to another task: it has to be released.
    pub(crate) fn end_unattended(&self) -> bool {
        self.settled(&Moment::now(), |state| match state.phase {
            Phase::Held => {
                self.end(state, Ending::Lost(LostReason::Unattended));
                false
            }
            Phase::Passing => {
                state.phase = Phase::Closing;
                true
            }
            Phase::Ended(_) | Phase::Closing => false,
        })
    }

    /// Ends the hold because the process shuts down, unless it has ended or is being released.
    pub(crate) fn end_for_shutdown(&self) {
        self.settled(&Moment::now(), |state| {
            if state.phase == Phase::Held {
                self.end(state, Ending::ShutDown);
            }
        });
    }

    /// Returns true if `max_hold` has passed, even if the lease was lost before.
    pub(crate) fn is_overdue(&self) -> bool {
        let limit = self.terms.max_age(&self.state());
        limit.is_some_and(|limit| self.age() >= limit)
    }

    /// The instant at which `max_hold` passes.
    pub(crate) fn overdue_at(&self) -> Option<Instant> {
        let limit = self.terms.max_age(&self.state());
        limit.map(|limit| self.terms.since.after(limit))
    }

    /// Resolves at the next change of the state. Call it before reading the state, so that no change is missed.
    /// Cancel safe.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Wakes everything that waits for a change of this hold.
    pub(crate) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// How long the lease stays provably ours without another renewal.
    pub(crate) fn remaining(&self) -> Duration {
        self.remaining_at(&Moment::now())
    }

    fn remaining_at(&self, now: &Moment) -> Duration {
        let state = self.state();
        match state.phase {
            Phase::Held => state.validity.saturating_sub(state.proved.age_at(now)),
            Phase::Ended(_) | Phase::Closing | Phase::Passing => Duration::ZERO,
        }
    }

    /// Since when the lease is provably ours, and for how long.
    pub(super) fn proof(&self) -> (Moment, Duration) {
        let state = self.state();
        (state.proved, state.validity)
    }

    /// Whether enough of the proof is left to pass the lease on: the next hold has time to begin, and to renew it.
    pub(super) fn has_proof_to_pass(&self, now: &Moment) -> bool {
        let (proved, validity) = self.proof();
        proved.age_at(now) < validity / 2
    }

    /// The lease as it is passed on.
    pub(super) fn passable(&self) -> Passable {
        Passable { ttl: self.claim.ttl, runtime: self.watchdog.runtime.id() }
    }

    /// Resolves when the hold ends before its owner releases it. Cancel safe.
    pub(crate) async fn ended(&self) -> Ending {
        loop {
            let changed = self.changed();
            if let Err(ending) = self.check() {
                return ending;
            }
            changed.await;
        }
    }

    pub(super) fn labels(&self) -> Labels<'_> {
        self.backend().labels(self.template, &self.claim.key)
    }

    /// The error that reports this ending to the caller.
    pub(crate) fn error(&self, ending: Ending, completed: bool) -> LockError {
        let key = self.claim.key.clone();
        match ending {
            Ending::Lost(reason) => LockError::Lost { key, completed, reason },
            Ending::HeldTooLong(max_hold) => LockError::HeldTooLong { key, max_hold },
            Ending::ShutDown => LockError::ShutDown { key, began: true },
        }
    }
}

/// For the watchdog's schedule.
impl Hold {
    pub(crate) fn place(&self) -> Option<u32> {
        let place = self.place.load(Ordering::Relaxed);
        (place != NO_PLACE).then_some(place)
    }

    pub(crate) fn set_place(&self, place: Option<u32>) {
        self.place.store(place.unwrap_or(NO_PLACE), Ordering::Relaxed);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.place().is_some() {
            self.watchdog.forget(self);
        }
        self.untrack();
    }
}
