//! Which folders existed a short while ago.
//!
//! A new key needs a folder, and a used one has it. Which request comes first is a guess from what is remembered here; a
//! wrong guess costs one more request. The servers remove an empty folder after a while, so it is forgotten, too.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

/// The most folders of one generation: half of what is remembered.
const MOST: usize = 65_536;

/// How long one generation collects. By default the servers look for empty folders every minute.
const LASTS: Duration = Duration::from_secs(30);

/// Two generations of folders, by hash: two paths with the same hash only cause a wrong guess.
#[derive(Debug)]
pub(super) struct Folders {
    recent: HashSet<u64>,
    before: HashSet<u64>,
    since: Instant,
    hasher: RandomState,
}

impl Default for Folders {
    fn default() -> Self {
        let (recent, before) = (HashSet::new(), HashSet::new());
        Self { recent, before, since: Instant::now(), hasher: RandomState::new() }
    }
}

impl Folders {
    /// Whether the folder probably exists.
    pub(super) fn knows(&mut self, folder: &str) -> bool {
        self.age();
        let hash = self.hasher.hash_one(folder);
        self.recent.contains(&hash) || self.before.contains(&hash)
    }

    /// Remembers a folder that exists.
    pub(super) fn note(&mut self, folder: &str) {
        self.age();
        self.recent.insert(self.hasher.hash_one(folder));
    }

    /// Forgets a folder that does not exist.
    pub(super) fn forget(&mut self, folder: &str) {
        let hash = self.hasher.hash_one(folder);
        self.recent.remove(&hash);
        self.before.remove(&hash);
    }

    fn age(&mut self) {
        let age = self.since.elapsed();
        if age < LASTS && self.recent.len() < MOST {
            return;
        }
        self.before = std::mem::take(&mut self.recent);
        if age >= LASTS * 2 {
            self.before.clear();
        }
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_known_until_it_is_gone() {
        let mut folders = Folders::default();
        assert!(!folders.knows("/dlock/k"));
        folders.note("/dlock/k");
        assert!(folders.knows("/dlock/k") && !folders.knows("/dlock/other"));
        folders.forget("/dlock/k");
        assert!(!folders.knows("/dlock/k"));
    }

    #[test]
    fn only_the_latest_folders_are_remembered() {
        let mut folders = Folders::default();
        for number in 0..MOST * 5 / 2 {
            folders.note(&format!("/dlock/{number}"));
        }
        assert!(folders.recent.len() + folders.before.len() <= MOST * 2);
        assert!(!folders.knows("/dlock/0") && folders.knows(&format!("/dlock/{}", MOST * 2)));
    }

    #[test]
    fn what_is_not_used_is_forgotten() {
        let mut folders = Folders::default();
        folders.note("/dlock/k");
        let earlier = |by: Duration| Instant::now().checked_sub(by).unwrap();
        folders.since = earlier(LASTS);
        assert!(folders.knows("/dlock/k"));
        folders.since = earlier(LASTS);
        assert!(!folders.knows("/dlock/k"));
        folders.note("/dlock/k");
        folders.since = earlier(LASTS * 2);
        assert!(!folders.knows("/dlock/k"));
    }
}
