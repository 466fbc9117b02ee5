//! Polls for a condition.

use std::time::{Duration, Instant};

/// How long to poll before the test fails.
const LIMIT: Duration = Duration::from_mins(1);

/// Polls until a condition is true: `while !condition.await { polls.pause().await }`.
pub struct Polls {
    fact: &'static str,
    began: Instant,
}

impl Polls {
    pub fn until(fact: &'static str) -> Self {
        Self { fact, began: Instant::now() }
    }

    /// Pauses before the next poll.
    pub async fn pause(&self) {
        assert!(self.began.elapsed() < LIMIT, "not within {LIMIT:?}: {}", self.fact);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
