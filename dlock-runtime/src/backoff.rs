//! Pauses between retries. They grow, with jitter so that waiters do not retry in lockstep.

use std::time::Duration;

use crate::chance;

/// Yields pauses that double from `first` to `longest`, each shortened at random by up to half.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(chance::between(0.5, 1.0));
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}
