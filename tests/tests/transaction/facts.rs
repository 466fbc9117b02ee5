//! Waiting for a fact.

use std::time::{Duration, Instant};

/// How long a fact may be waited for.
const LIMIT: Duration = Duration::from_mins(1);

/// Looks at a fact until it is true: `while !fact.await { looks.again().await }`.
pub struct Looks {
    fact: &'static str,
    began: Instant,
}

impl Looks {
    pub fn at(fact: &'static str) -> Self {
        Self { fact, began: Instant::now() }
    }

    /// Pauses before the next look.
    pub async fn again(&self) {
        assert!(self.began.elapsed() < LIMIT, "not within {LIMIT:?}: {}", self.fact);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
