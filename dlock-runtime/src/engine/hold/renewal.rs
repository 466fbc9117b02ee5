//! A hold as its watchdog sees it: when a renewal is due, and what its answer changes.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Ending, Hold, Phase, State};
use crate::clock::Moment;
use crate::error::LostReason;

/// The time from a grant or a renewal to the next renewal: a third of the ttl, or half of the
/// validity if that is shorter.
pub(super) fn renewal_period(ttl: Duration, validity: Duration) -> Duration {
    (ttl / 3).min(validity / 2)
}

/// The timeout of one attempt is the remaining validity divided by this, which leaves time for two more.
const ATTEMPT_DIVISOR: u32 = 3;

/// The shortest timeout of one attempt, unless less validity remains. A store needs time to answer.
const MIN_ATTEMPT: Duration = Duration::from_millis(50);

/// The pause after a failed renewal is at most the remaining validity divided by this.
const PAUSE_DIVISOR: u32 = 3;

/// The pause is at least the ttl divided by this, and never shorter than `MIN_PAUSE`.
const MIN_PAUSE_DIVISOR: u32 = 50;

const MIN_PAUSE: Duration = Duration::from_millis(5);

/// What the watchdog has to do for a hold next.
pub(crate) enum Step {
    Renew,
    Wait(Instant),
    Nothing,
}

impl Hold {
    /// Sets when this hold is due in the schedule, and returns the previous instant.
    pub(crate) fn reschedule(&self, due: Option<Instant>) -> Option<Instant> {
        std::mem::replace(&mut *self.scheduled(), due)
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        self.scheduled().is_some()
    }

    fn scheduled(&self) -> MutexGuard<'_, Option<Instant>> {
        self.scheduled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the watchdog has to check this hold next.
    pub(crate) fn due_at(&self) -> Instant {
        let state = self.state();
        self.next_due(&state)
    }

    fn next_due(&self, state: &State) -> Instant {
        let mut due = state.proved.after(state.validity);
        if let Some(age) = self.expires_at_age(state) {
            due = due.min(self.since.after(age));
        }
        if let Some(limit) = self.max_age(state) {
            due = due.min(self.since.after(limit));
        }
        if self.is_renewed(state) && !state.renewing {
            due = due.min(state.renew_at);
        }
        due
    }

    /// Decides what to do now. A renewal that is due within `slack` is sent early, together with others.
    pub(crate) fn step(&self, now: Instant, slack: Duration) -> Step {
        self.settled(|state| {
            if state.phase != Phase::Held {
                return Step::Nothing;
            }
            // A retry is not sent early, because its pause may be shorter than the slack.
            let slack =
                if state.failures == 0 { slack.min(self.claim.ttl / 20) } else { Duration::ZERO };
            if self.is_renewed(state) && !state.renewing && now + slack >= state.renew_at {
                state.renewing = true;
                return Step::Renew;
            }
            // At least a millisecond, because a timer may fire slightly before the validity ends.
            Step::Wait(self.next_due(state).max(now + Duration::from_millis(1)))
        })
    }

    /// The instant at which the hold ends unless the renewal in flight succeeds. To be called while one is in flight:
    /// then `due_at` does not include the next renewal.
    pub(crate) fn ends_at(&self) -> Instant {
        self.due_at()
    }

    /// The timeout of one renewal attempt. It leaves time for retries.
    pub(crate) fn attempt_timeout(&self) -> Duration {
        let left = self.remaining();
        (left / ATTEMPT_DIVISOR).max(MIN_ATTEMPT).min(left)
    }

    /// Applies the answer to a renewal: extends the validity, or schedules a retry. A hold that expired before the
    /// answer was processed stays expired, because somebody else may have held the key in between.
    fn renewed(&self, sent: Moment, answer: Renewed) -> Step {
        let step = self.settled(|state| {
            state.renewing = false;
            if let Renewed::Failed { executed: true } = answer {
                state.in_doubt = true;
            }
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
                Renewed::NotHeld => self.end(state, Ending::Lost(LostReason::NotHeld)),
                Renewed::Failed { .. } => {
                    let pause = self.pause_after_failure(state);
                    state.failures = state.failures.saturating_add(1);
                    state.renew_at = Instant::now() + pause;
                }
            }
            self.settle(state);
            match state.phase {
                Phase::Held => Step::Wait(self.next_due(state)),
                Phase::Ended(_) | Phase::Closing => Step::Nothing,
            }
        });
        self.notify();
        step
    }

    /// The pause before the next attempt. It grows with each failure, so that many holds do not overload a store that
    /// has just recovered, and it leaves time for a few more attempts.
    fn pause_after_failure(&self, state: &State) -> Duration {
        let left = state.validity.saturating_sub(state.proved.elapsed());
        let grown = (self.claim.ttl / 20).saturating_mul(1 << state.failures.min(8));
        let shortest = MIN_PAUSE.max(self.claim.ttl / MIN_PAUSE_DIVISOR);
        let pause = grown.min(left / PAUSE_DIVISOR).max(shortest);
        pause.mul_f64(rand::random_range(0.75..=1.0))
    }
}

/// The outcome of a renewal.
#[derive(Clone, Copy)]
pub(crate) enum Renewed {
    For(Duration),
    NotHeld,
    /// `executed`: the store may have executed the renewal, or may still execute it.
    Failed {
        executed: bool,
    },
}

/// A renewal in flight. If it is dropped unanswered, because its runtime shuts down, the hold stops waiting for it
/// and is marked in doubt.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// `None` once it has been answered.
    hold: Option<Arc<Hold>>,
}

impl InFlight {
    /// Expects that `renewing` has just been set on this hold.
    pub(crate) fn new(hold: Arc<Hold>) -> Self {
        Self { hold: Some(hold) }
    }

    /// Applies the answer, or the failure to get one, and returns what to do next.
    pub(crate) fn settle(mut self, sent: Moment, answer: Renewed) -> Step {
        self.hold.take().map_or(Step::Nothing, |hold| hold.renewed(sent, answer))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            let mut state = hold.state();
            state.renewing = false;
            state.in_doubt = true;
            drop(state);
            hold.notify();
        }
    }
}
