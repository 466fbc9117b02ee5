//! A hold as its watchdog sees it: when a renewal is due, and what its answer changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Ending, Hold, Phase, Renewing, State};
use crate::chance;
use crate::clock::Moment;
use crate::error::LostReason;
use crate::owner::OwnerId;

/// The time from a grant or a renewal to the next renewal, at most: a third of the ttl, or half of the validity if
/// that is shorter.
fn renewal_period(ttl: Duration, validity: Duration) -> Duration {
    (ttl / 3).min(validity / 2)
}

/// By how much of its period a renewal may come early: by jitter, so that leases that were acquired together are not
/// renewed together, and to be sent in one request with others.
const EARLY_DIVISOR: u32 = 4;

/// The time from a grant or a renewal to the next renewal, shortened by jitter. The jitter comes from the bits of the
/// owner id, which are random, and from others of them for each renewal.
pub(super) fn pause_before(
    owner: &OwnerId,
    renewals: u8,
    ttl: Duration,
    validity: Duration,
) -> Duration {
    let (bits, at) = (owner.as_bytes(), usize::from(renewals % 8) * 2);
    let jitter = u32::from(u16::from_be_bytes([bits[at], bits[at + 1]]));
    let period = renewal_period(ttl, validity);
    period.saturating_sub(period / EARLY_DIVISOR / (1 << 16) * jitter)
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
    /// The lease was passed to a task that does not receive it: it has to be released.
    Recall,
    Nothing,
}

impl Hold {
    /// Decides what to do at `now`. A renewal that is due soon is sent early, together with others.
    pub(crate) fn step(&self, now: &Moment) -> Step {
        self.settled(now, |state| {
            match state.phase {
                Phase::Held => {}
                Phase::Passing if now.instant() < state.renew_at => {
                    return Step::Wait(state.renew_at);
                }
                Phase::Passing => {
                    state.phase = Phase::Closing;
                    return Step::Recall;
                }
                Phase::Ended(_) | Phase::Closing => return Step::Nothing,
            }
            let is_renewed = self.terms.is_renewed(state, now) && !state.is_renewing();
            if is_renewed && now.instant() + self.slack_in(state) >= state.renew_at {
                state.renewal = Renewing::InFlight;
                return Step::Renew;
            }
            // At least a millisecond, because a timer may fire slightly before the validity ends.
            let due = self.terms.next_due(state, now);
            Step::Wait(due.max(now.instant() + Duration::from_millis(1)))
        })
    }

    /// How early a renewal may be sent together with others.
    pub(crate) fn slack(&self) -> Duration {
        self.slack_in(&self.state())
    }

    fn slack_in(&self, state: &State) -> Duration {
        if state.failures > 0 {
            // A retry is not sent early, because its pause may be shorter than the slack.
            return Duration::ZERO;
        }
        renewal_period(self.terms.ttl, state.validity) / EARLY_DIVISOR
    }

    /// The instant at which the hold ends unless the renewal in flight succeeds. To be called while one is in flight,
    /// because the next one would count too.
    pub(crate) fn ends_at(&self, now: &Moment) -> Instant {
        self.terms.next_due(&self.state(), now)
    }

    /// The timeout of a renewal attempt that is sent now. It leaves time for retries.
    pub(crate) fn attempt_timeout(&self, now: &Moment) -> Duration {
        let left = self.remaining_at(now);
        (left / ATTEMPT_DIVISOR).max(MIN_ATTEMPT).min(left)
    }

    /// Applies the answer to a renewal: extends the validity, or schedules a retry. A hold whose proof had ended when
    /// the answer arrived stays expired, because somebody else may have held the key in between.
    ///
    /// `now` must have been read after the answer arrived. It may be a little old: whoever has seen the hold end since
    /// then has changed its phase.
    fn renewed(&self, sent: Moment, answer: Renewed, now: &Moment) -> Step {
        let (step, awaited) = self.settled(now, |state| {
            let awaited = state.renewal == Renewing::Awaited;
            state.renewal = Renewing::No;
            if let Renewed::Failed { executed: true } = answer {
                state.in_doubt = true;
            }
            if state.phase != Phase::Held {
                return (Step::Nothing, true);
            }
            match answer {
                Renewed::For(validity) => {
                    state.failures = 0;
                    state.renewals = state.renewals.wrapping_add(1);
                    // It has been ours for long enough.
                    state.allowance = None;
                    state.proved = sent;
                    state.validity = validity;
                    let (owner, ttl) = (&self.claim.owner, self.terms.ttl);
                    let pause = pause_before(owner, state.renewals, ttl, validity);
                    state.renew_at = sent.after(pause);
                }
                Renewed::NotHeld => self.end(state, Ending::Lost(LostReason::NotHeld)),
                Renewed::Failed { .. } => {
                    let pause = self.pause_after_failure(state, now);
                    state.failures = state.failures.saturating_add(1);
                    state.renew_at = now.instant() + pause;
                }
            }
            self.settle(state, now);
            match state.phase {
                Phase::Held => (Step::Wait(self.terms.next_due(state, now)), awaited),
                Phase::Ended(_) | Phase::Closing | Phase::Passing => (Step::Nothing, true),
            }
        });
        // A body is not woken by a renewal that succeeds.
        if awaited {
            self.notify();
        }
        step
    }

    /// The pause before the next attempt. It grows with each failure, so that many holds do not overload a store that
    /// has just recovered, and it leaves time for a few more attempts.
    fn pause_after_failure(&self, state: &State, now: &Moment) -> Duration {
        let left = state.validity.saturating_sub(state.proved.age_at(now));
        let grown = (self.terms.ttl / 20).saturating_mul(1 << state.failures.min(8));
        let shortest = MIN_PAUSE.max(self.terms.ttl / MIN_PAUSE_DIVISOR);
        let pause = grown.min(left / PAUSE_DIVISOR).max(shortest);
        pause.mul_f64(chance::between(0.75, 1.0))
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
    /// Expects that this hold has just been set to renewing.
    pub(crate) fn new(hold: Arc<Hold>) -> Self {
        Self { hold: Some(hold) }
    }

    /// The hold, until the renewal has been answered.
    pub(crate) fn hold(&self) -> Option<&Arc<Hold>> {
        self.hold.as_ref()
    }

    /// Applies the answer, or the failure to get one, and returns what to do next. `now` must have been read after
    /// the answer arrived.
    pub(crate) fn settle(mut self, sent: Moment, answer: Renewed, now: &Moment) -> Step {
        self.hold.take().map_or(Step::Nothing, |hold| hold.renewed(sent, answer, now))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            let mut state = hold.state();
            state.renewal = Renewing::No;
            state.in_doubt = true;
            drop(state);
            hold.notify();
        }
    }
}
