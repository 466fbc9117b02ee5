//! Limits the attempts during an outage to a few per second, however many callers there are.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::error::BackendError;

/// A failure that is reported to several callers.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    message: String,
    transient: bool,
    sent: bool,
}

impl Failure {
    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self { message: message.into(), transient: true, sent: true }
    }
}

impl From<&BackendError> for Failure {
    fn from(error: &BackendError) -> Self {
        let sent = error.may_have_been_sent();
        Self { message: error.to_string(), transient: error.is_transient(), sent }
    }
}

impl From<Failure> for BackendError {
    fn from(failure: Failure) -> Self {
        let error = if failure.transient {
            Self::transient(failure.message)
        } else {
            Self::permanent(failure.message)
        };
        if failure.sent { error } else { error.not_sent() }
    }
}

/// The last failure while attempts fail, and when the next attempt is due.
#[derive(Debug)]
pub(crate) struct Outage {
    first_pause: Duration,
    longest_pause: Duration,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    last: Failure,
    next: Instant,
    pauses: Backoff,
}

impl Outage {
    /// Starts without an outage. The pauses between failed attempts grow from the first to the longest.
    pub(crate) const fn new(first_pause: Duration, longest_pause: Duration) -> Self {
        Self { first_pause, longest_pause, state: Mutex::new(None) }
    }

    /// Admits an attempt, or returns the failure of the last one.
    pub(crate) fn admit(&self) -> Result<(), Failure> {
        let mut state = self.state();
        let Some(state) = &mut *state else { return Ok(()) };
        let now = Instant::now();
        if now < state.next {
            return Err(state.last.clone());
        }
        // Admits one attempt per pause.
        state.next = now + state.pauses.pause();
        Ok(())
    }

    /// Records that an attempt has failed.
    pub(crate) fn failed(&self, failure: &Failure) {
        let mut state = self.state();
        if let Some(state) = &mut *state {
            state.last = failure.clone();
            return;
        }
        let mut pauses = Backoff::new(self.first_pause, self.longest_pause);
        let next = Instant::now() + pauses.pause();
        *state = Some(State { last: failure.clone(), next, pauses });
    }

    /// Records that an attempt has succeeded.
    pub(crate) fn over(&self) {
        *self.state() = None;
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn attempts_are_limited_during_an_outage_and_not_after_it() {
        let outage = Outage::new(SECOND / 10, SECOND);
        let failure = Failure::transient("away");
        let mut attempts = 0;
        for _ in 0..10_000 {
            if outage.admit().is_ok() {
                attempts += 1;
                outage.failed(&failure);
            }
            tokio::time::advance(SECOND / 1_000).await;
        }
        // Ten seconds: pauses of half a second to one, after a few shorter ones.
        assert!((10..=26).contains(&attempts), "{attempts}");
        let refusal = BackendError::from(outage.admit().expect_err("an attempt was made just now"));
        assert!(refusal.is_transient() && refusal.to_string() == "away");
        outage.over();
        assert!((0..100).all(|_| outage.admit().is_ok()));
    }
}
