//! Keys that this process has acquired a short while ago. Their rows exist, so a simpler statement acquires them again.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::key::LockKey;

/// A key is remembered for one to two of these. Rows are kept for longer; if one is missing all the same, nothing but
/// the time for a statement is lost.
const GENERATION: Duration = Duration::from_secs(20);

/// The most keys of a generation.
const MOST: usize = 4_096;

/// Hashes of keys; two keys with the same hash count as one.
#[derive(Default)]
pub(super) struct RecentKeys {
    hasher: RandomState,
    generations: Mutex<Generations>,
}

struct Generations {
    young: HashSet<u64>,
    old: HashSet<u64>,
    since: Instant,
}

impl Default for Generations {
    fn default() -> Self {
        Self { young: HashSet::new(), old: HashSet::new(), since: Instant::now() }
    }
}

impl RecentKeys {
    pub(super) fn note(&self, key: &LockKey) {
        let hash = self.hash(key);
        let mut generations = self.generations();
        if generations.young.len() == MOST || generations.since.elapsed() > GENERATION {
            generations.old = std::mem::take(&mut generations.young);
            generations.since = Instant::now();
        }
        generations.young.insert(hash);
    }

    pub(super) fn has(&self, key: &LockKey) -> bool {
        let hash = self.hash(key);
        let generations = self.generations();
        generations.since.elapsed() <= GENERATION
            && (generations.young.contains(&hash) || generations.old.contains(&hash))
    }

    pub(super) fn forget(&self, key: &LockKey) {
        let hash = self.hash(key);
        let mut generations = self.generations();
        generations.young.remove(&hash);
        generations.old.remove(&hash);
    }

    fn hash(&self, key: &LockKey) -> u64 {
        self.hasher.hash_one(key.as_str())
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_until_they_are_forgotten() {
        let recent = RecentKeys::default();
        let key = |number: usize| LockKey::from(format!("k{number}"));
        assert!(!recent.has(&key(0)));
        recent.note(&key(0));
        recent.note(&key(1));
        assert!(recent.has(&key(0)) && recent.has(&key(1)));
        recent.forget(&key(0));
        assert!(!recent.has(&key(0)) && recent.has(&key(1)));
    }

    #[test]
    fn only_so_many_keys_are_remembered() {
        let recent = RecentKeys::default();
        for number in 0..10 * MOST {
            recent.note(&LockKey::from(format!("k{number}")));
        }
        let generations = recent.generations();
        assert!(generations.young.len() + generations.old.len() <= 2 * MOST);
        assert!(generations.young.contains(&recent.hash(&format!("k{}", 10 * MOST - 1).into())));
    }
}
