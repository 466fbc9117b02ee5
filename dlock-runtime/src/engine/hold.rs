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
use crate::options::LockOptions;
use crate::token::FencingToken;

use self::renewal::renewal_period;
pub(crate) use self::renewal::{InFlight, Renewed, Step};

/// One lease that this process holds or has held.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) engine: Arc<Engine>,
    pub(crate) backend: Arc<NamedBackend>,
    pub(crate) claim: Claim,
    pub(crate) token: FencingToken,
    /// The low-cardinality name for traces and metrics.
    pub(crate) template: &'static str,
    /// Taken before the granted request was sent.
    pub(crate) since: Moment,
    pub(crate) options: LockOptions,
    /// Where background work for this hold can run.
    pub(crate) runtime: Handle,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) number: u64,
    state: Mutex<State>,
    /// When this hold is due in its watchdog's schedule. Changed only under that schedule's lock.
    scheduled: Mutex<Option<Instant>>,
    /// Notified when the hold ends, when a body under it ends, and when a renewal in flight finishes.
    changed: Notify,
}

/// The longest allowed extension of a hold.
const LONGEST_EXTENSION: Duration = Duration::from_hours(366 * 24);

#[derive(Debug)]
struct State {
    /// The lease is provably ours while `proved.elapsed() < validity`.
    proved: Moment,
    validity: Duration,
    phase: Phase,
    renewing: bool,
    /// When the next renewal is due.
    renew_at: Instant,
    failures: u32,
    /// The age at which every `min_hold` of this hold and of its nested calls has passed.
    keep_until_age: Duration,
    /// The age until which the owner has extended the hold.
    extended_to_age: Duration,
    /// The front of the local queue, if the hold is exclusive. Passed on when the lease ends, because from then on
    /// the store decides who is next.
    turn: Option<Turn>,
    /// The store may still execute a request of this claim, even after its release: an acquire that was abandoned
    /// before the granted one, or a renewal that was not answered.
    in_doubt: bool,
    /// Makes a shutdown wait for this hold.
    tracked: Option<TaskTrackerToken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Held,
    Ended(Ending),
    /// The owner is releasing it. No renewal starts any more.
    Closing,
}

/// How a hold ended before its owner released it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Lost(LostReason),
    /// The hold exceeded this `max_hold`.
    HeldTooLong(Duration),
}

impl Hold {
    #[expect(clippy::too_many_arguments, reason = "one call site, one argument per part")]
    pub(crate) fn new(
        engine: Arc<Engine>,
        backend: Arc<NamedBackend>,
        claim: Claim,
        token: FencingToken,
        template: &'static str,
        since: Moment,
        validity: Duration,
        options: LockOptions,
        in_doubt: bool,
        turn: Option<Turn>,
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
            keep_until_age: options.min_hold.unwrap_or_default(),
            extended_to_age: Duration::ZERO,
            turn,
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
            options,
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

    /// Ends the hold if its time is up, then applies `change`. If the hold has ended, the next task in the local
    /// queue may ask the store.
    fn settled<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state();
        self.settle(&mut state);
        let result = change(&mut state);
        let ended = matches!(state.phase, Phase::Ended(_));
        let turn = state.turn.take_if(|_| ended);
        // Dropping the turn wakes the next task, which must not happen under the lock.
        drop(state);
        drop(turn);
        result
    }

    /// Checks that the lease is provably valid and the hold within its limits.
    pub(crate) fn check(&self) -> Result<(), Ending> {
        self.settled(|state| match state.phase {
            Phase::Held => Ok(()),
            Phase::Ended(ending) => Err(ending),
            // The owner is gone. Only a nested call that entered under this hold can still ask.
            Phase::Closing => Err(Ending::Lost(LostReason::OuterClosed)),
        })
    }

    /// Ends the hold if its time is up. A loss takes precedence over `max_hold`, because somebody else
    /// may hold the lease by now.
    fn settle(&self, state: &mut State) {
        if state.phase != Phase::Held {
            return;
        }
        if state.proved.elapsed() >= state.validity
            || self.expires_at_age(state).is_some_and(|age| self.since.elapsed() >= age)
        {
            self.end(state, Ending::Lost(LostReason::Expired));
        } else if let Some(limit) = self.max_age(state)
            && self.since.elapsed() >= limit
        {
            self.end(state, Ending::HeldTooLong(limit));
        }
    }

    /// Returns true if the hold needs renewals, even if they only prove that its session is alive.
    fn is_renewed(&self, state: &State) -> bool {
        self.options.renew
            || self.backend.capabilities.session
            || self.since.elapsed() < state.extended_to_age
    }

    /// The age at which a hold with `renew = false` expires on a session backend, which would keep it longer. (Such a
    /// hold is still renewed until then: see `is_renewed`.)
    fn expires_at_age(&self, state: &State) -> Option<Duration> {
        let ends = self.backend.capabilities.session && !self.options.renew;
        ends.then(|| validity_of(self.claim.ttl).max(state.extended_to_age))
    }

    /// The age at which `max_hold` ends the hold; an extension can raise it.
    fn max_age(&self, state: &State) -> Option<Duration> {
        self.options.max_hold.map(|limit| limit.max(state.extended_to_age))
    }

    fn end(&self, state: &mut State, ending: Ending) {
        state.phase = Phase::Ended(ending);
        self.changed.notify_waiters();
        if self.backend.capabilities.session {
            // The store would keep it as long as its session lives.
            let abandoned = Abandoned { claim: self.claim.clone(), late_acquire: true };
            abandon_later(&self.engine, &self.backend, abandoned, &self.runtime, None);
        }
        if let Ending::Lost(loss) = ending {
            telemetry::lost(self.labels(), self.token, self.since.elapsed(), loss);
        }
    }

    /// Ends the hold because its watchdog is gone, unless it has ended or is being released.
    pub(crate) fn end_unattended(&self) {
        self.settled(|state| {
            if state.phase == Phase::Held {
                self.end(state, Ending::Lost(LostReason::Unattended));
            }
        });
    }

    /// Returns true if `max_hold` has passed, even if the lease was lost before.
    pub(crate) fn is_overdue(&self) -> bool {
        let limit = self.max_age(&self.state());
        limit.is_some_and(|limit| self.since.elapsed() >= limit)
    }

    /// The instant at which `max_hold` passes.
    pub(crate) fn overdue_at(&self) -> Option<Instant> {
        let limit = self.max_age(&self.state());
        limit.map(|limit| self.since.after(limit))
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
        let state = self.state();
        match state.phase {
            Phase::Held => state.validity.saturating_sub(state.proved.elapsed()),
            Phase::Ended(_) | Phase::Closing => Duration::ZERO,
        }
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

    /// Extends the hold to last at least `least` from now, and renews the lease. Cancel safe: the
    /// extension is recorded before the first await.
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
        // In its own task, because a renewal that was sent must be awaited to its end.
        let hold = Arc::clone(self);
        let proving = self.runtime.spawn(async move { hold.renew_now().await });
        // If that runtime is stalled, no renewal arrives and the hold ends with its validity.
        tokio::select! {
            _ = proving => {}
            _ = self.ended() => {}
        }
        check()
    }

    async fn renew_now(self: Arc<Self>) {
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

    /// The part of `min_hold` that is left, if any.
    pub(crate) fn min_hold_left(&self) -> Option<Duration> {
        let keep_until_age = self.state().keep_until_age;
        if keep_until_age.is_zero() {
            return None;
        }
        let left = keep_until_age.saturating_sub(self.since.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// The error that reports this ending to the caller.
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

/// Release.
impl Hold {
    /// Stops renewal for good, and waits up to `limit` for a renewal in flight. If `limit` passes first, the hold is
    /// marked in doubt, because the store may execute that renewal after the release. Returns the ending if the
    /// hold had already ended.
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
            && tokio::time::timeout(limit, self.renewal_finished()).await.is_err()
        {
            self.state().in_doubt = true;
        }
        before
    }

    async fn renewal_finished(&self) {
        loop {
            let changed = self.changed();
            if !self.state().renewing {
                return;
            }
            changed.await;
        }
    }

    /// Takes the front of the local queue, if the hold still has it.
    pub(crate) fn take_turn(&self) -> Option<Turn> {
        self.state().turn.take()
    }

    pub(super) fn labels(&self) -> Labels<'_> {
        self.backend.labels(self.template, &self.claim.key)
    }

    /// Returns true if the store may still execute a request of this claim after its release.
    pub(crate) fn in_doubt(&self) -> bool {
        self.state().in_doubt
    }

    /// Lets a shutdown proceed without this hold, even while references to it remain.
    pub(crate) fn untrack(&self) {
        let tracked = self.state().tracked.take();
        drop(tracked);
    }
}
