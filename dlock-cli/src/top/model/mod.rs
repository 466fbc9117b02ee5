//! What successive samples of a store tell: which locks are busy, and who is waited for. Pure: it reads no clock.

mod blame;
mod moment;
mod timeline;
pub mod wait;
mod watched;

#[cfg(test)]
pub mod samples;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use dlock_runtime::backend::LockState;
use dlock_runtime::{ClientInfo, LockKey};

pub use self::blame::{Blame, Site};
pub use self::moment::Moment;
pub use self::timeline::Pair;
pub use self::watched::Watched;

/// A client without a client info.
pub const UNKNOWN: &str = "unknown";

/// For how long a key that became free stays on the screen, so that one that comes and goes does not flicker.
const LINGERING: Duration = Duration::from_secs(10);

/// The locks of a store, and what was seen of them.
#[derive(Clone, Debug)]
pub struct Model {
    locks: BTreeMap<LockKey, Watched>,
    blame: Blame,
    /// The last sample, if nothing was missed since then.
    last: Option<Moment>,
    now: Option<Moment>,
    waited: Duration,
    samples: u64,
    has_seen_waiters: bool,
    knows_grants: bool,
}

impl Model {
    /// `knows_grants`: is a holder's `since` the moment of its grant?
    pub fn new(knows_grants: bool) -> Self {
        Self {
            locks: BTreeMap::new(),
            blame: Blame::default(),
            last: None,
            now: None,
            waited: Duration::ZERO,
            samples: 0,
            has_seen_waiters: false,
            knows_grants,
        }
    }

    /// Takes a sample of all locks.
    pub fn sample(&mut self, at: Moment, locks: Vec<LockState>) {
        let mut present: BTreeMap<_, _> =
            locks.into_iter().map(|lock| (lock.key.clone(), lock)).collect();
        for key in self.locks.keys() {
            // A key that nobody holds or waits for is not listed.
            let idle = || LockState::new(key.clone(), Vec::new(), Vec::new());
            present.entry(key.clone()).or_insert_with(idle);
        }
        self.has_seen_waiters |= present.values().any(|lock| !lock.waiters.is_empty());
        if let Some(last) = self.last {
            self.charge(last, at, &present);
        }
        for (key, lock) in present {
            match self.locks.get_mut(&key) {
                Some(watched) => watched.update(lock, at),
                None => _ = self.locks.insert(key, Watched::new(lock, at)),
            }
        }
        self.locks
            .retain(|_, lock| !lock.is_free() || at.elapsed.saturating_sub(lock.seen) < LINGERING);
        self.forget_ended();
        (self.last, self.now) = (Some(at), Some(at));
        self.samples += 1;
    }

    /// A sample failed. Nothing is charged for the time until the next one, because nobody watched.
    pub fn interrupt(&mut self) {
        self.last = None;
    }

    /// Forgets whom was waited for, but not what is there now.
    pub fn clear(&mut self) {
        self.blame = Blame::default();
        self.waited = Duration::ZERO;
    }

    pub fn locks(&self) -> impl Iterator<Item = &Watched> {
        self.locks.values()
    }

    pub fn lock(&self, key: &str) -> Option<&Watched> {
        self.locks.get(&LockKey::from(key))
    }

    pub fn blame(&self) -> &Blame {
        &self.blame
    }

    /// When the last sample was taken.
    pub fn now(&self) -> Option<Moment> {
        self.now
    }

    /// How long waiters have waited in the time that was sampled.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    pub fn samples(&self) -> u64 {
        self.samples
    }

    pub fn has_seen_waiters(&self) -> bool {
        self.has_seen_waiters
    }

    pub fn knows_grants(&self) -> bool {
        self.knows_grants
    }

    /// Charges the waits since the last sample.
    fn charge(&mut self, from: Moment, to: Moment, present: &BTreeMap<LockKey, LockState>) {
        for (key, after) in present {
            let idle = LockState::new(key.clone(), Vec::new(), Vec::new());
            let before = self.locks.get(key).map_or(&idle, |watched| &watched.state);
            let pair = Pair { before, after, from, to, knows_grants: self.knows_grants };
            for piece in pair.pieces() {
                self.waited += piece.waits.iter().map(|_| piece.length).sum::<Duration>();
                self.blame.charge(key, &piece);
            }
        }
    }

    fn forget_ended(&mut self) {
        let locks = &self.locks;
        let waits: HashSet<_> = locks
            .values()
            .flat_map(|lock| {
                wait::of(&lock.state).into_iter().map(|wait| (&lock.state.key, wait.id))
            })
            .collect();
        let is_held = |key: &LockKey, token: u64| {
            let holders = locks.get(key).map(|lock| &lock.state.holders);
            holders.is_some_and(|holders| holders.iter().any(|holder| holder.token.get() == token))
        };
        let is_waiting = |key: &LockKey, wait: &str| waits.contains(&(key, wait.to_owned()));
        self.blame.retain(is_held, is_waiting);
    }
}

/// The site of a client.
pub fn site_of(client: Option<&ClientInfo>) -> &str {
    client.map_or(UNKNOWN, ClientInfo::label)
}
