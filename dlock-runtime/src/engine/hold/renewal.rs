//! A hold as its watchdog sees it: when it is to be renewed, and what comes of a renewal.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Ending, Hold, Phase, State};
use crate::clock::Moment;
use crate::error::LostReason;

/// How long after a grant or a renewal the next one is due: a third of the ttl, or half of what was
/// proved where that is less.
pub(super) fn renewal_period(ttl: Duration, validity: Duration) -> Duration {
    (ttl / 3).min(validity / 2)
}

/// One try of a renewal is given so much of the proof that is left: there is time for two more.
const PART_OF_A_TRY: u32 = 3;

/// But at least so long, unless less is left: a store must have the time to answer.
const LEAST_TRY: Duration = Duration::from_millis(50);

/// The pause after a failed renewal is at most this part of the proof that is left.
const PART_OF_A_PAUSE: u32 = 3;

/// It is at least this part of a ttl, and never shorter than `SHORTEST_PAUSE`.
const SHORTEST_PART: u32 = 50;

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// What the watchdog has to do for a hold now.
pub(crate) enum Step {
    Renew,
    Wait(Instant),
    Nothing,
}

impl Hold {
    /// Notes a new place in the schedule; gives back the old one.
    pub(crate) fn reschedule(&self, due: Option<Instant>) -> Option<Instant> {
        std::mem::replace(&mut *self.place_in_schedule(), due)
    }

    pub(crate) fn is_scheduled(&self) -> bool {
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
        self.settled(|state| {
            if state.phase != Phase::Held {
                return Step::Nothing;
            }
            // A retry is not put forward: its pause may be shorter than the slack.
            let slack =
                if state.failures == 0 { slack.min(self.claim.ttl / 20) } else { Duration::ZERO };
            if self.is_renewed(state) && !state.renewing && now + slack >= state.renew_at {
                state.renewing = true;
                return Step::Renew;
            }
            // A millisecond at least: a timer may fire a shade before the proof ends.
            Step::Wait(self.next_due(state).max(now + Duration::from_millis(1)))
        })
    }

    /// The instant at which the hold ends if nothing renews it.
    pub(crate) fn end_due(&self) -> Instant {
        self.first_due()
    }

    /// How long one try of a renewal may take: it leaves time for others.
    pub(crate) fn try_limit(&self) -> Duration {
        let left = self.remaining();
        (left / PART_OF_A_TRY).max(LEAST_TRY).min(left)
    }

    /// Takes in a renewal's answer: a longer proof, or a later try. A proof that had ended before the answer was
    /// heard stays ended, since somebody else may have held the key in between.
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

    /// It grows from failure to failure, so that many holds do not wear down a store that has come back; and it
    /// leaves time for a few more tries.
    fn pause_after_failure(&self, state: &State) -> Duration {
        let left = state.validity.saturating_sub(state.proved.elapsed());
        let grown = (self.claim.ttl / 20).saturating_mul(1 << state.failures.min(8));
        let shortest = SHORTEST_PAUSE.max(self.claim.ttl / SHORTEST_PART);
        let pause = grown.min(left / PART_OF_A_PAUSE).max(shortest);
        pause.mul_f64(rand::random_range(0.75..=1.0))
    }
}

/// What came of a renewal.
#[derive(Clone, Copy)]
pub(crate) enum Renewed {
    For(Duration),
    NotHeld,
    /// `executed`: the store may have executed it, or may still do so.
    Failed {
        executed: bool,
    },
}

/// A renewal in flight. Should it be dropped unanswered, because its runtime is shut down, nobody waits for it.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// `None` once it has been answered.
    hold: Option<Arc<Hold>>,
}

impl InFlight {
    /// For a hold that has just been marked as being renewed.
    pub(crate) fn new(hold: Arc<Hold>) -> Self {
        Self { hold: Some(hold) }
    }

    /// It is answered, or given up, and the hold says what to do next.
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
