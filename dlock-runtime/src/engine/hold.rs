//! One hold: the lease, the proof that it is still valid, and how it ends.

mod renewal;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::local_queue::Turn;
use super::release::{Abandoned, abandon_later};
use super::telemetry::{self, Labels};
use super::watchdog::Watchdog;
use super::{Engine, NamedBackend};
use crate::backend::{Claim, validity_of};
use crate::clock::Moment;
use crate::error::{LockError, LostReason};
use crate::token::FencingToken;

use self::renewal::renewal_period;
pub(crate) use self::renewal::{InFlight, Renewed, Step};

/// Everything about one lease that this process holds or held.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) engine: Arc<Engine>,
    pub(crate) backend: Arc<NamedBackend>,
    pub(crate) claim: Claim,
    pub(crate) token: FencingToken,
    /// The low-cardinality name for traces and metrics.
    pub(crate) template: &'static str,
    /// Before the request that was granted was sent.
    pub(crate) since: Moment,
    pub(crate) terms: HoldLimits,
    /// Where background work for this hold can run.
    pub(crate) runtime: Handle,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) number: u64,
    state: Mutex<State>,
    /// Where it stands in its watchdog's schedule; changed only under that schedule's lock.
    scheduled: Mutex<Option<Instant>>,
    /// Notified when the hold ends, when a body under it has ended, and when a renewal in flight has come back.
    changed: Notify,
}

/// The longest time by which a hold can be extended.
const LONGEST_EXTENSION: Duration = Duration::from_hours(366 * 24);

/// What was agreed for this hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HoldLimits {
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
    /// The front of the local queue, where an exclusive hold keeps it: until its lease has ended, since then the
    /// store decides who is next.
    place: Option<Turn>,
    /// A request of this claim may still be executed, after its release even: an acquire that was given up before
    /// the one that was granted, or a renewal without an answer.
    in_doubt: bool,
    /// Counts this hold among the things a shutdown waits for.
    tracked: Option<TaskTrackerToken>,
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
    Lost(LostReason),
    /// Longer than this `max_hold`.
    HeldTooLong(Duration),
}

impl Hold {
    #[expect(clippy::too_many_arguments, reason = "the parts of a hold, given once")]
    pub(crate) fn new(
        engine: Arc<Engine>,
        backend: Arc<NamedBackend>,
        claim: Claim,
        token: FencingToken,
        template: &'static str,
        since: Moment,
        validity: Duration,
        terms: HoldLimits,
        in_doubt: bool,
        place: Option<Turn>,
        runtime: Handle,
        watchdog: Arc<Watchdog>,
    ) -> Self {
        let number = engine.next_hold_number();
        let state = State {
            proved: since,
            validity,
            phase: Phase::Held,
            renewing: false,
            renew_at: since.after(renewal_period(claim.ttl, validity)),
            failures: 0,
            keep_until_age: terms.min_hold.unwrap_or_default(),
            extended_to_age: Duration::ZERO,
            place,
            in_doubt,
            tracked: Some(engine.background.token()),
        };
        Self {
            engine,
            backend,
            claim,
            token,
            template,
            since,
            terms,
            runtime,
            watchdog,
            number,
            state: Mutex::new(state),
            scheduled: Mutex::new(None),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, with what is due by the clock done first. If the hold has ended, the next task of this
    /// process may ask the store.
    fn settled<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state();
        self.settle(&mut state);
        let result = change(&mut state);
        let ended = matches!(state.phase, Phase::Ended(_));
        let place = state.place.take_if(|_| ended);
        // It wakes the next task, which is not done under a lock.
        drop(state);
        drop(place);
        result
    }

    /// Is the lease provably valid, and the hold within its bounds?
    pub(crate) fn check(&self) -> Result<(), Ending> {
        self.settled(|state| match state.phase {
            Phase::Held => Ok(()),
            Phase::Ended(ending) => Err(ending),
            // Its owner has left; what else is still here had entered under it.
            Phase::Closing => Err(Ending::Lost(LostReason::OuterClosed)),
        })
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
            self.end(state, Ending::Lost(LostReason::Expired));
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
            abandon_later(&self.engine, &self.backend, abandoned, &self.runtime, None);
        }
        if let Ending::Lost(loss) = ending {
            telemetry::lost(self.labels(), self.token, self.since.elapsed(), loss);
        }
    }

    /// Ends the hold because nobody renews it any more, unless it has ended or is being released.
    pub(crate) fn unattended(&self) {
        self.settled(|state| {
            if state.phase == Phase::Held {
                self.end(state, Ending::Lost(LostReason::Unattended));
            }
        });
    }

    /// Has its `max_hold` passed, whether or not its lease was lost before?
    pub(crate) fn is_overdue(&self) -> bool {
        let limit = self.longest(&self.state());
        limit.is_some_and(|limit| self.since.elapsed() >= limit)
    }

    /// When its `max_hold` will have passed.
    pub(crate) fn overdue_at(&self) -> Option<Instant> {
        let limit = self.longest(&self.state());
        limit.map(|limit| self.since.after(limit))
    }

    /// Resolves at the next change worth another look: it is to be called before the look. Cancel safe.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Notifies those who watch this hold that a body under it has ended.
    pub(crate) fn notify(&self) {
        self.changed.notify_waiters();
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
            let changed = self.changed();
            if let Err(ending) = self.check() {
                return ending;
            }
            changed.await;
        }
    }

    /// Has it last for so long from now at least, and proves it once more. Cancel safe: it is asked for
    /// before anything is awaited.
    pub(crate) async fn extend(self: &Arc<Self>, least: Duration) -> Result<(), LockError> {
        if least > LONGEST_EXTENSION {
            return Err(LockError::Unsupported {
                backend: (&*self.backend.name).into(),
                option: format!("an extension by {least:?}: the longest is {LONGEST_EXTENSION:?}")
                    .into(),
            });
        }
        let check = || self.check().map_err(|ending| self.error(ending, false));
        check()?;
        {
            let mut state = self.state();
            state.extended_to_age = state.extended_to_age.max(self.since.elapsed() + least);
        }
        // In a task of its own: a renewal that has begun must be heard to its end.
        let hold = Arc::clone(self);
        let proving = self.runtime.spawn(async move { hold.prove_again().await });
        // A runtime that stands still proves nothing: the hold then ends with its proof.
        tokio::select! {
            _ = proving => {}
            _ = self.ended() => {}
        }
        check()
    }

    async fn prove_again(self: Arc<Self>) {
        loop {
            let changed = self.changed();
            let free = self.settled(|state| {
                let held = state.phase == Phase::Held;
                held.then(|| !std::mem::replace(&mut state.renewing, true))
            });
            match free {
                None => return,
                Some(true) => break,
                Some(false) => changed.await,
            }
        }
        let in_flight = InFlight::new(Arc::clone(&self));
        super::watchdog::renew_now(self, in_flight).await;
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
    /// Stops renewal for good: none begins after this, and none is in flight when it resolves, or `limit` has
    /// passed and the release has to reckon with one. Says whether the hold had ended already.
    ///
    /// Cancel safe: renewal stays stopped.
    pub(crate) async fn close(&self, limit: Duration) -> Result<(), Ending> {
        self.watchdog.forget(self);
        let before = self.settled(|state| match state.phase {
            Phase::Ended(ending) => Err(ending),
            Phase::Held | Phase::Closing => {
                state.phase = Phase::Closing;
                Ok(())
            }
        });
        self.notify();
        if self.state().renewing
            && tokio::time::timeout(limit, self.renewed_by_now()).await.is_err()
        {
            self.state().in_doubt = true;
        }
        before
    }

    async fn renewed_by_now(&self) {
        loop {
            let changed = self.changed();
            if !self.state().renewing {
                return;
            }
            changed.await;
        }
    }

    /// The front of the local queue, if the hold still keeps it.
    pub(crate) fn take_place(&self) -> Option<Turn> {
        self.state().place.take()
    }

    /// May a request of this claim be executed after its release?
    pub(super) fn labels(&self) -> Labels<'_> {
        self.backend.labels(self.template, &self.claim.key)
    }

    pub(crate) fn in_doubt(&self) -> bool {
        self.state().in_doubt
    }

    /// A shutdown need not wait for this hold any more, whoever still refers to it.
    pub(crate) fn untrack(&self) {
        let tracked = self.state().tracked.take();
        drop(tracked);
    }
}
