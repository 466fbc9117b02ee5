//! An outage is logged once, and then in summaries: not once for each hold and each retry.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines about failures of one kind.
const BETWEEN: Duration = Duration::from_secs(10);

/// Lets one line through every ten seconds, and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    logged: Option<Instant>,
    since_then: u64,
}

impl Throttle {
    /// Notes one failure. If it is to be logged: how many were not, since the last line.
    pub(super) fn note(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.logged.is_some_and(|logged| now.saturating_duration_since(logged) < BETWEEN) {
            state.since_then += 1;
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.since_then))
    }
}

/// The kinds of failures of one backend that are logged apart.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    pub(super) acquires: Throttle,
    pub(super) renewals: Throttle,
    pub(super) releases: Throttle,
    pub(super) given_up: Throttle,
    pub(super) watches: Throttle,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_every_ten_seconds_counts_what_it_left_out() {
        let throttle = Throttle::default();
        assert_eq!(throttle.note(), Some(0));
        for _ in 0..40_000 {
            assert_eq!(throttle.note(), None);
        }
        tokio::time::advance(BETWEEN).await;
        assert_eq!(throttle.note(), Some(40_000));
        assert_eq!(throttle.note(), None);
    }
}
