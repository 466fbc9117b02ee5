//! The end of a hold by its release.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Ending, Hold, Phase};
use crate::backend::Release;
use crate::clock::Moment;
use crate::engine::local_queue::Turn;

/// A hold that is being released: no renewal starts any more.
#[must_use = "dropping it passes on the turn in the local queue"]
pub(crate) struct Closing {
    /// The ending, if the hold had already ended.
    pub(crate) before: Result<(), Ending>,
    /// The front of the local queue, if the hold still had it.
    pub(crate) turn: Option<Turn>,
    /// A renewal is in flight.
    pub(crate) is_renewing: bool,
}

impl Hold {
    /// Stops renewal for good. A renewal that is in flight has to be awaited with
    /// [`renewal_finished`](Self::renewal_finished).
    pub(crate) fn close(&self) -> Closing {
        self.watchdog.forget(self);
        let closing = self.settled(&Moment::now(), |state| {
            let before = match state.phase {
                Phase::Ended(ending) => Err(ending),
                Phase::Held | Phase::Closing => {
                    state.phase = Phase::Closing;
                    Ok(())
                }
            };
            Closing { before, turn: state.turn.take(), is_renewing: state.renewing }
        });
        // Nested calls that are still polled, and extensions.
        self.notify();
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
                if !self.state().renewing {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(limit, finished).await.is_err() {
            self.state().in_doubt = true;
        }
    }

    /// How to release the lease now.
    pub(crate) fn release_with(&self) -> Release {
        let (keep_until_age, late_acquire) = {
            let state = self.state();
            (state.keep_until_age, state.in_doubt)
        };
        // The clock is read only if there was a `min_hold`.
        let left = (!keep_until_age.is_zero())
            .then(|| keep_until_age.saturating_sub(self.since.elapsed()))
            .filter(|left| !left.is_zero());
        Release { keep_for: left, late_acquire }
    }

    /// Takes the front of the local queue, if the hold still has it.
    pub(crate) fn take_turn(&self) -> Option<Turn> {
        self.state().turn.take()
    }

    /// Lets a shutdown proceed without this hold, even while references to it remain.
    pub(crate) fn untrack(&self) {
        if self.is_open.swap(false, Ordering::Relaxed) {
            self.engine.open_holds.remove();
        }
    }
}
