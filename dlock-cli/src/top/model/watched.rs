//! One key on the screen.

use std::collections::VecDeque;
use std::time::Duration;

use dlock_runtime::backend::LockState;

use super::Moment;
use super::timeline::is_same;

/// Over how long grants are counted for the rate.
const WINDOW: Duration = Duration::from_secs(10);

/// A key that was seen.
#[derive(Clone, Debug)]
pub struct Watched {
    /// As the last sample that showed it.
    pub state: LockState,
    /// When that was.
    pub seen: Duration,
    /// When the key was first sampled.
    first: Duration,
    /// The moments of samples that showed new grants, and how many.
    grants: VecDeque<(Duration, u32)>,
}

impl Watched {
    pub fn new(state: LockState, at: Moment) -> Self {
        let seen = at.elapsed;
        Self { state, seen, first: seen, grants: VecDeque::new() }
    }

    /// Nobody holds it or waits for it any more.
    pub fn is_free(&self) -> bool {
        self.state.is_idle()
    }

    /// Another sample of it.
    pub fn update(&mut self, state: LockState, at: Moment) {
        let before = &self.state.holders;
        let is_new = |holder: &&_| !before.iter().any(|other| is_same(holder, other));
        let new = state.holders.iter().filter(is_new).count();
        if new > 0 {
            self.grants.push_back((at.elapsed, u32::try_from(new).unwrap_or(u32::MAX)));
        }
        self.forget_grants(at);
        if !state.is_idle() {
            self.seen = at.elapsed;
        }
        self.state = state;
    }

    /// Grants seen in a second: a lower bound, since a sample shows only the last one before it.
    pub fn grants_per_second(&self, now: Moment) -> f64 {
        let span = now.elapsed.saturating_sub(self.first).min(WINDOW);
        let grants: u32 = self.grants.iter().map(|(_, grants)| grants).sum();
        if span.is_zero() { 0.0 } else { f64::from(grants) / span.as_secs_f64() }
    }

    fn forget_grants(&mut self, now: Moment) {
        let since = now.elapsed.saturating_sub(WINDOW);
        while self.grants.front().is_some_and(|(at, _)| *at <= since) {
            self.grants.pop_front();
        }
    }
}
