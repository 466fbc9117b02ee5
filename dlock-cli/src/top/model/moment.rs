//! When a sample was taken.

use std::time::{Duration, SystemTime};

/// A moment on two clocks: one that never jumps, to measure with, and the one that clients write into the store.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the first sample.
    pub elapsed: Duration,
    pub clock: SystemTime,
}

impl Moment {
    /// When that was, measured as `elapsed` is; `None` before the first sample.
    pub fn elapsed_at(self, clock: SystemTime) -> Option<Duration> {
        match self.clock.duration_since(clock) {
            Ok(ago) => self.elapsed.checked_sub(ago),
            Err(ahead) => self.elapsed.checked_add(ahead.duration()),
        }
    }

    /// How long ago that was; zero if another host's clock is ahead.
    pub fn since(self, clock: SystemTime) -> Duration {
        self.clock.duration_since(clock).unwrap_or_default()
    }
}
