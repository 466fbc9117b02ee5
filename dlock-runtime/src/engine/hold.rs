//! One hold: the lease, the proof that it is still valid, and how it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::release::{Abandoned, abandon_later};
use super::watchdog::Watchdog;
use crate::backend::{Claim, validity_of};
use crate::clock::Moment;
use crate::error::{LockError, Loss};
use crate::registry::{Registered, RegistryInner};
use crate::token::FencingToken;

/// Everything about one lease that this process holds or held.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) registry: Arc<RegistryInner>,
    pub(crate) backend: Arc<Registered>,
    pub(crate) claim: Claim,
    pub(crate) token: FencingToken,
    /// The low-cardinality name for traces and metrics.
    pub(crate) template: &'static str,
    /// Before the request that was granted was sent.
    pub(crate) since: Moment,
    pub(crate) terms: Terms,
    /// A `try_acquire` of this claim was given up before the one that was granted.
    pub(crate) late_acquire: bool,
    /// Where background work for this hold can run.
    pub(crate) runtime: Handle,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) number: u64,
    /// Counts this hold among the things a shutdown waits for.
    _tracked: TaskTrackerToken,
    state: Mutex<State>,
    /// Where it stands in its watchdog's schedule; changed only under that schedule's lock.
    scheduled: Mutex<Option<Instant>>,
    /// Told when the hold ends, and when a renewal in flight has come back.
    changed: Notify,
}

/// How long after a grant or a renewal the next one is due: a third of the ttl, or half of what was
/// proved where that is less.
fn renewal_period(ttl: Duration, validity: Duration) -> Duration {
    (ttl / 3).min(validity / 2)
}

/// What was agreed for this hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) renew: bool,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) min_hold: Option<Duration>,
}

#[derive(Debug)]
struct State {
    /// The lease is surely ours while `proved.elapsed() < validity`.
    proved: Moment,
    validity: Duration,
    phase: Phase,
    renewing: bool,
    /// When the next renewal is due.
    renew_at: Instant,
    failures: u32,
    /// `min_hold` of this hold and of nested ones, whichever ends last.
    keep_until_age: Duration,
    /// Its owner has asked that it lasts to this age at least.
    extended_to_age: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Held,
    Ended(Ending),
    /// Its owner is giving it back: no renewal begins any more.
    Closing,
}

/// How a hold ended before its owner gave it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Lost(Loss),
    /// Longer than this `max_hold`.
    HeldTooLong(Duration),
}

/// What the watchdog has to do for a hold now.
pub(crate) enum Step {
    Renew,
    Wait(Instant),
    Nothing,
}

impl Hold {
    #[expect(clippy::too_many_arguments, reason = "the parts of a hold, given once")]
    pub(crate) fn new(
        registry: Arc<RegistryInner>,
        backend: Arc<Registered>,
        claim: Claim,
        token: FencingToken,
        template: &'static str,
        since: Moment,
        validity: Duration,
        terms: Terms,
        late_acquire: bool,
        runtime: Handle,
        watchdog: Arc<Watchdog>,
    ) -> Self {
        let number = registry.next_hold_number();
        let state = State {
            proved: since,
            validity,
            phase: Phase::Held,
            renewing: false,
            renew_at: since.after(renewal_period(claim.ttl, validity)),
            failures: 0,
            keep_until_age: terms.min_hold.unwrap_or_default(),
            extended_to_age: Duration::ZERO,
        };
        let tracked = registry.background.token();
        Self {
            registry,
            backend,
            claim,
            token,
            template,
            since,
            terms,
            late_acquire,
            runtime,
            watchdog,
            number,
            _tracked: tracked,
            state: Mutex::new(state),
            scheduled: Mutex::new(None),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is the lease provably valid, and the hold within its bounds?
    pub(crate) fn check(&self) -> Result<(), Ending> {
        let mut state = self.state();
        self.settle(&mut state);
        match state.phase {
            Phase::Ended(ending) => Err(ending),
            Phase::Held | Phase::Closing => Ok(()),
        }
    }

    /// Ends the hold if its time is over: the loss first, since a lease that may be another's by
    /// now is the graver news.
    fn settle(&self, state: &mut State) {
        if state.phase != Phase::Held {
            return;
        }
        if state.proved.elapsed() >= state.validity
            || self.lasts(state).is_some_and(|age| self.since.elapsed() >= age)
        {
            self.end(state, Ending::Lost(Loss::Expired));
        } else if let Some(limit) = self.longest(state)
            && self.since.elapsed() >= limit
        {
            self.end(state, Ending::HeldTooLong(limit));
        }
    }

    /// Does somebody have to renew it, be it only the proof of a session?
    fn is_renewed(&self, state: &State) -> bool {
        self.terms.renew
            || self.backend.capabilities.session
            || self.since.elapsed() < state.extended_to_age
    }

    /// To which age it lasts at most, where the store would let it last longer.
    fn lasts(&self, state: &State) -> Option<Duration> {
        let ends = self.backend.capabilities.session && !self.terms.renew;
        ends.then(|| validity_of(self.claim.ttl).max(state.extended_to_age))
    }

    /// To which age its owner lets it last.
    fn longest(&self, state: &State) -> Option<Duration> {
        self.terms.max_hold.map(|limit| limit.max(state.extended_to_age))
    }

    fn end(&self, state: &mut State, ending: Ending) {
        state.phase = Phase::Ended(ending);
        self.changed.notify_waiters();
        if self.backend.capabilities.session {
            // It would last as long as its session does.
            let abandoned = Abandoned { claim: self.claim.clone(), late_acquire: true };
            abandon_later(&self.registry, &self.backend, abandoned, &self.runtime, None);
        }
        if let Ending::Lost(loss) = ending {
            crate::telemetry::lost(self, loss);
        }
    }

    /// Ends the hold as lost, unless it has ended or is being given back.
    pub(crate) fn lose(&self, loss: Loss) {
        let mut state = self.state();
        if state.phase == Phase::Held {
            self.end(&mut state, Ending::Lost(loss));
        }
    }

    /// Ends the hold because nobody renews it any more; a renewal in flight is gone as well.
    pub(crate) fn unattended(&self) {
        self.state().renewing = false;
        self.changed.notify_waiters();
        self.lose(Loss::Unattended);
    }

    /// How long the lease is surely ours from now, without another renewal.
    pub(crate) fn remaining(&self) -> Duration {
        let state = self.state();
        match state.phase {
            Phase::Held => state.validity.saturating_sub(state.proved.elapsed()),
            Phase::Ended(_) | Phase::Closing => Duration::ZERO,
        }
    }

    /// Resolves when the hold ends before its owner gives it back. Cancel safe.
    pub(crate) async fn ended(&self) -> Ending {
        loop {
            let changed = self.changed.notified();
            if let Err(ending) = self.check() {
                return ending;
            }
            changed.await;
        }
    }

    /// Has it last for so long from now at least, and proves it once more. Cancel safe: it is asked for
    /// before anything is awaited.
    pub(crate) async fn extend(self: &Arc<Self>, least: Duration) -> Result<(), Ending> {
        self.check()?;
        {
            let mut state = self.state();
            state.extended_to_age = state.extended_to_age.max(self.since.elapsed() + least);
        }
        // In a task of its own: a renewal that has begun must be heard to its end.
        let hold = Arc::clone(self);
        let proving = self.runtime.spawn(async move { hold.prove_again().await });
        let _ = proving.await;
        self.check()
    }

    async fn prove_again(self: Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                if state.phase != Phase::Held {
                    return;
                }
                if !state.renewing {
                    state.renewing = true;
                    break;
                }
            }
            changed.await;
        }
        super::watchdog::renew_now(self).await;
    }

    pub(crate) fn keep_at_least(&self, min_hold: Duration) {
        let mut state = self.state();
        state.keep_until_age = state.keep_until_age.max(self.since.elapsed() + min_hold);
    }

    /// The rest of the `min_hold`, if any is left.
    pub(crate) fn rest_to_keep(&self) -> Option<Duration> {
        let keep_until_age = self.state().keep_until_age;
        if keep_until_age.is_zero() {
            return None;
        }
        let rest = keep_until_age.saturating_sub(self.since.elapsed());
        (!rest.is_zero()).then_some(rest)
    }

    /// The error a caller gets for this ending.
    pub(crate) fn error(&self, ending: Ending, completed: bool) -> LockError {
        let key = self.claim.key.clone();
        match ending {
            Ending::Lost(reason) => LockError::Lost { key, completed, reason },
            Ending::HeldTooLong(max_hold) => LockError::HeldTooLong { key, max_hold },
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.watchdog.forget(self);
    }
}

/// Giving back.
impl Hold {
    /// Stops renewal for good: none begins after this, and none is in flight when it resolves.
    /// Says whether the proof had ended already. Cancel safe: renewal stays stopped.
    pub(crate) async fn close(&self) -> Result<(), Ending> {
        self.watchdog.forget(self);
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                self.settle(&mut state);
                let ending = match state.phase {
                    Phase::Ended(ending) => Err(ending),
                    Phase::Held | Phase::Closing => Ok(()),
                };
                if ending.is_ok() {
                    state.phase = Phase::Closing;
                }
                if !state.renewing {
                    return ending;
                }
            }
            changed.await;
        }
    }
}

/// The watchdog's side.
impl Hold {
    /// Notes a new place in the schedule; gives back the old one.
    pub(super) fn reschedule(&self, due: Option<Instant>) -> Option<Instant> {
        std::mem::replace(&mut *self.place_in_schedule(), due)
    }

    pub(super) fn is_scheduled(&self) -> bool {
        self.place_in_schedule().is_some()
    }

    fn place_in_schedule(&self) -> MutexGuard<'_, Option<Instant>> {
        self.scheduled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the watchdog has to look at this hold first.
    pub(crate) fn first_due(&self) -> Instant {
        let state = self.state();
        self.next_due(&state)
    }

    fn next_due(&self, state: &State) -> Instant {
        let mut due = state.proved.after(state.validity);
        if let Some(age) = self.lasts(state) {
            due = due.min(self.since.after(age));
        }
        if let Some(limit) = self.longest(state) {
            due = due.min(self.since.after(limit));
        }
        if self.is_renewed(state) && !state.renewing {
            due = due.min(state.renew_at);
        }
        due
    }

    /// What is to be done now; renewals due within `slack` go out together with this one.
    pub(crate) fn step(&self, now: Instant, slack: Duration) -> Step {
        let mut state = self.state();
        self.settle(&mut state);
        if state.phase != Phase::Held {
            return Step::Nothing;
        }
        if self.is_renewed(&state)
            && !state.renewing
            && now + slack.min(self.claim.ttl / 20) >= state.renew_at
        {
            state.renewing = true;
            return Step::Renew;
        }
        // A millisecond at least: a timer may fire a shade before the proof ends.
        Step::Wait(self.next_due(&state).max(now + Duration::from_millis(1)))
    }

    /// The instant at which the hold ends if nothing renews it.
    pub(crate) fn end_due(&self) -> Instant {
        self.first_due()
    }

    /// Takes in a renewal's answer: a longer proof, or a later try.
    pub(crate) fn renewed(&self, sent: Moment, answer: Renewed) -> Step {
        let mut state = self.state();
        state.renewing = false;
        self.changed.notify_waiters();
        if state.phase != Phase::Held {
            return Step::Nothing;
        }
        match answer {
            Renewed::For(validity) => {
                state.failures = 0;
                state.proved = sent;
                state.validity = validity;
                state.renew_at = sent.after(renewal_period(self.claim.ttl, validity));
            }
            Renewed::NotHeld => self.end(&mut state, Ending::Lost(Loss::NotHeld)),
            Renewed::Failed => {
                state.failures += 1;
                let pause =
                    (self.claim.ttl / 20).clamp(Duration::from_millis(5), Duration::from_secs(1));
                state.renew_at = Instant::now() + pause;
            }
        }
        self.settle(&mut state);
        match state.phase {
            Phase::Held => Step::Wait(self.next_due(&state)),
            Phase::Ended(_) | Phase::Closing => Step::Nothing,
        }
    }
}

/// What came of a renewal.
#[derive(Clone, Copy)]
pub(crate) enum Renewed {
    For(Duration),
    NotHeld,
    Failed,
}
