//! The limits of a hold, by its options and its backend.

use std::time::Duration;

use tokio::time::Instant;

use super::{Phase, State};
use crate::backend::validity_of;
use crate::clock::{BootTime, Moment};

/// What limits a hold, and does not change while it lasts.
#[derive(Debug)]
pub(super) struct Terms {
    /// When the hold began: taken before the granted request was sent, or when the lease was passed on.
    pub(super) since: Moment,
    pub(super) ttl: Duration,
    pub(super) renew: bool,
    pub(super) max_hold: Option<Duration>,
    /// The store keeps the lock as long as a session lives.
    pub(super) session: bool,
}

impl Terms {
    /// Returns true if the hold needs renewals, even if they only prove that its session is alive.
    pub(super) fn is_renewed(&self, state: &State, now: &Moment) -> bool {
        self.renew || self.session || self.since.age_at(now) < state.extended_to_age()
    }

    /// The age at which a hold with `renew = false` expires on a session backend, which would keep it longer. (Such a
    /// hold is still renewed until then: see `is_renewed`.)
    pub(super) fn expires_at_age(&self, state: &State) -> Option<Duration> {
        let ends = self.session && !self.renew;
        ends.then(|| validity_of(self.ttl).max(state.extended_to_age()))
    }

    /// The age at which `max_hold` ends the hold; an extension can raise it.
    pub(super) fn max_age(&self, state: &State) -> Option<Duration> {
        self.max_hold.map(|limit| limit.max(state.extended_to_age()))
    }

    /// When the watchdog has to check the hold next.
    pub(super) fn next_due(&self, state: &State, now: &Moment) -> Instant {
        let mut due = state.proved.after(state.validity);
        if let Some(age) = self.expires_at_age(state) {
            due = due.min(self.since.after(age));
        }
        if let Some(limit) = self.max_age(state) {
            due = due.min(self.since.after(limit));
        }
        if self.is_renewed(state, now) && !state.is_renewing() {
            due = due.min(state.renew_at);
        }
        due
    }

    /// Until when the boot clock alone shows that the lease is valid and the hold within its limits.
    pub(super) fn fine_until(&self, state: &State) -> BootTime {
        if state.phase != Phase::Held || !state.trusts_boot_clock {
            return BootTime::ZERO;
        }
        let until = state.proved.boot().plus(state.validity);
        let ages = self.expires_at_age(state).into_iter().chain(self.max_age(state));
        ages.fold(until, |until, age| until.min(self.since.boot().plus(age)))
    }
}
