//! The end of a hold by its release.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Ending, Hold, Phase, State};
use crate::backend::Release;
use crate::clock::{self, Moment};
use crate::engine::local_queue::Turn;
use crate::engine::passing::{Allowance, UNRECEIVED};
use crate::engine::telemetry;
use crate::sync::atomic::Ordering;
use crate::timer;

/// A hold that is being released: no renewal starts any more.
#[must_use = "dropping it passes on the turn in the local queue"]
pub(crate) struct Closing {
    /// The ending, if the hold had already ended.
    pub(crate) before: Result<(), Ending>,
    /// The front of the local queue, if the hold still had it.
    pub(crate) turn: Option<Turn>,
    /// The lease may be passed on.
    pub(crate) allowance: Option<Box<Allowance>>,
    /// A renewal is in flight.
    pub(crate) is_renewing: bool,
    how: HowToRelease,
}

/// What decides how a lease is released.
#[derive(Clone, Copy)]
struct HowToRelease {
    /// The age that every `min_hold` asks for.
    keep_until_age: Duration,
    /// The store may still execute a request of the claim.
    in_doubt: bool,
}

impl HowToRelease {
    /// Whether nothing but the lease itself has to be released.
    fn is_plain(self) -> bool {
        self.keep_until_age.is_zero() && !self.in_doubt
    }
}

impl State {
    fn how_to_release(&self) -> HowToRelease {
        HowToRelease { keep_until_age: self.keep_until_age(), in_doubt: self.in_doubt }
    }
}

impl Hold {
    /// Stops renewal for good. A renewal that is in flight has to be awaited with
    /// [`renewal_finished`](Self::renewal_finished).
    pub(crate) fn close(self: &Arc<Self>) -> Closing {
        self.watchdog.forget(self);
        self.close_as(false)
    }

    /// The same, for a hold whose lease may be passed on. If the answer has an allowance, the lease is on its way from
    /// now on, and its watchdog recalls it unless somebody [receives](Self::receive) it.
    pub(crate) fn close_to_pass(self: &Arc<Self>) -> Closing {
        let closing = self.close_as(true);
        if closing.allowance.is_none() {
            self.watchdog.forget(self);
        }
        closing
    }

    fn close_as(self: &Arc<Self>, may_pass: bool) -> Closing {
        let close = |state: &mut State| {
            let before = match state.phase {
                Phase::Ended(ending) => Err(ending),
                Phase::Held | Phase::Closing => {
                    state.phase = Phase::Closing;
                    Ok(())
                }
                Phase::Passing => Ok(()),
            };
            let how = state.how_to_release();
            let is_renewing = state.is_renewing();
            let passes = may_pass && before.is_ok() && !is_renewing && how.is_plain();
            let allowance = state.allowance.take().filter(|_| passes && state.turn.is_some());
            if allowance.is_some() {
                state.phase = Phase::Passing;
                state.renew_at = clock::instant() + UNRECEIVED;
            }
            Closing { before, turn: state.turn.take(), allowance, is_renewing, how }
        };
        let closing = if self.is_fine() {
            let mut state = self.state();
            let closing = close(&mut state);
            self.note_fine(&state);
            closing
        } else {
            self.settled(&Moment::now(), close)
        };
        if self.has_children() {
            // They have stopped already. Whoever else has a token learns of the end.
            self.cancel_children();
        }
        // Nested calls that are still polled, views of the guard, and extensions. All of them refer to the hold.
        if Arc::strong_count(self) > 1 {
            self.notify();
        }

        closing
    }

    /// Waits up to `limit` for the renewal in flight of a hold that was closed. If `limit` passes first, the hold is
    /// marked in doubt, because the store may execute that renewal after the release.
    ///
    /// Cancel safe: renewal stays stopped.
    pub(crate) async fn renewal_finished(&self, limit: Duration) {
        let finished = async {
            loop {
                let changed = self.changed();
                if !self.state().is_renewing() {
                    return;
                }
                changed.await;
            }
        };
        if timer::timeout(limit, finished).await.is_err() {
            self.state().in_doubt = true;
        }
    }

    /// How to release the lease now.
    pub(crate) fn release_now(&self) -> Release {
        let how = self.state().how_to_release();
        self.release_as(how)
    }

    /// The same, as it was when the hold was closed. A renewal that was in flight then may change it.
    pub(crate) fn release_at_once(&self, closing: &Closing) -> Release {
        self.release_as(closing.how)
    }

    fn release_as(&self, how: HowToRelease) -> Release {
        let HowToRelease { keep_until_age, in_doubt } = how;
        // The clock is read only if there was a `min_hold`.
        let left = (!keep_until_age.is_zero()).then(|| keep_until_age.saturating_sub(self.age()));
        Release { keep_for: left.filter(|left| !left.is_zero()), late_acquire: in_doubt }
    }

    /// Notes that the lease is on its way to another task, which has this long to receive it. False if it must not be
    /// sent: it was recalled, or its watchdog is gone.
    pub(crate) fn send_off(&self, until: Instant) -> bool {
        let mut state = self.state();
        if state.phase != Phase::Passing {
            return false;
        }
        state.renew_at = until;
        drop(state);
        self.watchdog.check_again(self, until)
    }

    /// When the lease is recalled, if it is on its way.
    pub(crate) fn recall_at(&self) -> Option<Instant> {
        let state = self.state();
        (state.phase == Phase::Passing).then_some(state.renew_at)
    }

    /// Takes the lease that is on its way. False if it was recalled: then it is being released.
    pub(crate) fn receive(&self) -> bool {
        self.watchdog.forget(self);
        let mut state = self.state();
        let is_passing = state.phase == Phase::Passing;
        if is_passing {
            state.phase = Phase::Closing;
        }
        is_passing
    }

    /// Lets a shutdown proceed without this hold, even while references to it remain.
    pub(crate) fn untrack(&self) {
        if self.is_open.swap(false, Ordering::Relaxed) {
            self.engine.open_holds.remove();
            telemetry::hold_closed(self.labels());
        }
    }
}
