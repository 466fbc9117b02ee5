//! How safe a hold is, as a sequence of changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Ending, Hold};
use crate::clock::Moment;
use crate::error::LostReason;
use crate::timer;

/// How safe a hold is; returned by [`LockGuard::state`](crate::LockGuard::state).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldState {
    /// The lock is held, and its lease is renewed in time.
    Held,
    /// The lock is still held, but less than half of the lease's validity is left: a renewal is overdue, or the hold has
    /// `renew(false)`.
    AtRisk {
        /// How much longer the lock is provably held, unless a renewal succeeds.
        remaining: Duration,
    },
    /// The lease ended before it was released. Others may hold the lock.
    Lost {
        /// What ended it.
        reason: LostReason,
    },
    /// The lock was released, `max_hold` has passed, or the process is shutting down.
    Ended,
}

impl HoldState {
    /// Returns whether the lock is still held.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        matches!(self, Self::Held | Self::AtRisk { .. })
    }
}

/// The changes of a hold's state; returned by [`LockGuard::states`](crate::LockGuard::states).
#[derive(Debug)]
#[must_use = "states do nothing unless `next` is awaited"]
pub struct States {
    hold: Arc<Hold>,
    last: Option<HoldState>,
}

impl States {
    pub(crate) fn new(hold: Arc<Hold>) -> Self {
        Self { hold, last: None }
    }

    /// Returns the present state at first, and then the next one that differs; `None` after the hold has ended.
    ///
    /// A further renewal that fails is no change. A state that lasts only until it is asked for may be missed, except the
    /// last one.
    ///
    /// # Cancel safety
    /// Cancel safe: no change is lost.
    pub async fn next(&mut self) -> Option<HoldState> {
        if self.last.is_some_and(|last| !last.is_held()) {
            return None;
        }
        loop {
            let changed = self.hold.changed();
            let (state, look_again) = self.hold.state_at(&Moment::now());
            let is_new = self
                .last
                .is_none_or(|last| std::mem::discriminant(&last) != std::mem::discriminant(&state));
            if is_new {
                self.last = Some(state);
                return Some(state);
            }
            // A renewal that succeeds notifies nobody.
            let _ = timer::timeout_at(look_again, changed).await;
        }
    }
}

impl From<Ending> for HoldState {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Lost(LostReason::OuterClosed) | Ending::HeldTooLong(_) | Ending::ShutDown => {
                Self::Ended
            }
            Ending::Lost(reason) => Self::Lost { reason },
        }
    }
}

impl Hold {
    /// The state, and when it may change by itself.
    pub(crate) fn state_at(&self, now: &Moment) -> (HoldState, Instant) {
        if let Err(ending) = self.check() {
            return (ending.into(), now.instant());
        }
        let (proved, validity) = self.proof();
        let risk_at = proved.after(validity / 2);
        // A millisecond later, because a timer may fire slightly too early.
        let later = |at: Instant| at + Duration::from_millis(1);
        if now.instant() < risk_at {
            return (HoldState::Held, later(risk_at));
        }
        let remaining = validity.saturating_sub(proved.age_at(now));
        let state = HoldState::AtRisk { remaining };
        (state, later(now.instant() + remaining / 10))
    }
}
