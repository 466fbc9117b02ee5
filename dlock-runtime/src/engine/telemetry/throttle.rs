//! Logs an outage once and then in summaries, instead of once per hold and retry.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two log lines about one kind of failure.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one log line through per ten seconds, and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    logged: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// Counts one failure. If it should be logged, returns how many were suppressed since the last line.
    pub(super) fn note(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.logged.is_some_and(|logged| now.saturating_duration_since(logged) < INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

/// The failures of one backend, throttled separately by kind.
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
    async fn a_line_every_ten_seconds_reports_the_number_suppressed() {
        let throttle = Throttle::default();
        assert_eq!(throttle.note(), Some(0));
        for _ in 0..40_000 {
            assert_eq!(throttle.note(), None);
        }
        tokio::time::advance(INTERVAL).await;
        assert_eq!(throttle.note(), Some(40_000));
        assert_eq!(throttle.note(), None);
    }
}
