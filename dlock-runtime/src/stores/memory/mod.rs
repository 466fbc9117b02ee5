//! Locks inside one process: for tests, for single-process services, and as the simplest
//! implementation of the backend contract.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{
    Answer, Answers, Attempt, Backend, Capabilities, Claim, Holder, LockState, MAX_LISTED, Release,
    Released, Renewal, SetAttempt, Watch,
};
use crate::clock;
use crate::error::BackendError;
use crate::key::{KeyMap, LockKey};
use crate::lock_table::record::{Decision, Micros, Part, Record, SetDecision, acquire_set, micros};
use crate::stores::shared::tombstones::Tombstones;

/// The fewest entries that are swept.
const MIN_SWEEP: usize = 64;

/// Times in entries are whole microseconds.
const CLOCK_STEP: Duration = Duration::from_micros(1);

/// Leases in the memory of this process.
///
/// Clones share their locks. Two registries on clones of one `Memory` exclude each other, as two
/// processes on one server do. Time is tokio's: while its clock is paused, leases are exact.
///
/// Nothing survives the process. Compare tokens only if they come from one `Memory` and its clones.
#[derive(Clone, Debug)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// The origin of the entries' times.
    began: Instant,
    entries: KeyMap<Record>,
    /// Records that were in use and are empty again, so that a new one needs no allocation. A few at most.
    spare: Vec<Record>,
    sweep_at: usize,
    /// One counter for all keys, so that a released key leaves nothing behind.
    last_token: u64,
    watches: KeyMap<Vec<Arc<Bell>>>,
    tombstones: Tombstones,
    /// An acquire was abandoned, once.
    has_tombstones: bool,
}

impl Default for Memory {
    fn default() -> Self {
        let state = State {
            began: clock::instant(),
            entries: KeyMap::default(),
            spare: Vec::new(),
            sweep_at: 0,
            last_token: 0,
            watches: KeyMap::default(),
            tombstones: Tombstones::default(),
            has_tombstones: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl Memory {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty store, with the signature that every backend has. The URL is `memory:`.
    ///
    /// # Errors
    /// A permanent error if the URL has another scheme or anything after the scheme.
    #[allow(clippy::unused_async, reason = "every backend has the same signature")]
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        match url {
            "memory:" | "memory://" => Ok(Self::new()),
            _ => {
                Err(BackendError::permanent("the URL of a memory backend is just `memory:`")
                    .not_sent())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn now(&self) -> Micros {
        micros(clock::instant().saturating_duration_since(self.began))
    }

    fn try_acquire(&mut self, claim: &Claim) -> Attempt {
        if self.has_tombstones && self.tombstones.has(claim) {
            return Attempt::busy(None);
        }
        let now = self.now();
        // An acquire of a known key does not touch other keys.
        if self.entries.len() >= self.sweep_at.max(MIN_SWEEP)
            && !self.entries.contains_key(&claim.key)
        {
            self.sweep(now);
        }
        let spare = &mut self.spare;
        let entry = self.entries.entry(claim.key.clone());
        let entry = entry.or_insert_with(|| spare.pop().unwrap_or_default());
        let last_token = &mut self.last_token;
        let draw = || {
            *last_token += u64::from(claim.block());
            *last_token
        };
        let attempt = match entry.acquire(claim, now, draw) {
            Decision::Granted(last) => {
                Attempt::granted_up_to(last, claim, claim.ttl.saturating_sub(CLOCK_STEP))
            }
            Decision::Busy { retry_in, queued: true } => Attempt::queued(retry_in),
            Decision::Busy { retry_in, queued: false } => Attempt::busy(retry_in),
        };
        attempt.with_other_permits(entry.other_permits(claim))
    }

    fn try_acquire_set(&mut self, claims: &[Claim]) -> SetAttempt {
        if let Some(at) = self.tombstones.first_of(claims) {
            return SetAttempt::busy(at, None, false);
        }
        let now = self.now();
        if self.entries.len() >= self.sweep_at.max(MIN_SWEEP) {
            self.sweep(now);
        }
        let removed =
            claims.iter().map(|claim| self.entries.remove(&claim.key).unwrap_or_default());
        let mut entries: Vec<Record> = removed.collect();
        let numbered = entries.iter_mut().zip(1..);
        let parts = numbered.map(|(entry, number)| {
            let next_token = self.last_token + number;
            Part { entry, now, next_token }
        });
        let decision = acquire_set(&mut parts.collect::<Vec<_>>(), claims);
        if let SetDecision::Granted(tokens) = &decision {
            self.last_token = tokens.iter().copied().fold(self.last_token, u64::max);
        }
        let mut both = entries.iter().zip(claims);
        let other_permits = both.find_map(|(entry, claim)| entry.other_permits(claim));
        for (entry, claim) in entries.into_iter().zip(claims) {
            if !entry.is_empty() {
                self.entries.insert(claim.key.clone(), entry);
            }
        }
        let validity = claims.iter().map(|claim| claim.ttl).min().unwrap_or_default();
        SetAttempt::of(decision, validity.saturating_sub(CLOCK_STEP))
            .with_other_permits(other_permits)
    }

    fn renew(&mut self, claim: &Claim) -> Renewal {
        let now = self.now();
        let entry = self.entries.get_mut(&claim.key);
        if entry.is_some_and(|entry| entry.renew(claim, now)) {
            Renewal::Renewed { validity: claim.ttl.saturating_sub(CLOCK_STEP) }
        } else {
            Renewal::NotHeld
        }
    }

    fn release(&mut self, claim: &Claim, release: Release) -> Released {
        if release.late_acquire {
            self.tombstones.note(claim);
            self.has_tombstones = true;
        }
        let now = self.now();
        let Some(entry) = self.entries.get_mut(&claim.key) else {
            return Released::NotHeld;
        };
        let released = entry.release(claim, release, now);
        let is_empty = entry.is_empty();
        self.notify(&claim.key, is_empty);
        released
    }

    fn inspect(&mut self, key: &LockKey) -> Option<Holder> {
        let now = self.now();
        let entry = self.entries.get_mut(key)?;
        entry.expire(now);
        Some(entry.granted.first()?.holder(now))
    }

    fn list(&mut self, prefix: &str) -> Vec<LockState> {
        let now = self.now();
        let found = self.entries.iter_mut().filter(|(key, _)| key.as_str().starts_with(prefix));
        let states = found.map(|(key, entry)| entry.state(key.clone(), now));
        let mut states: Vec<_> = states.filter(|state| !state.is_idle()).collect();
        states.sort_by(|one, other| one.key.cmp(&other.key));
        states.truncate(MAX_LISTED);
        states
    }

    fn revoke(&mut self, key: &LockKey) -> bool {
        let now = self.now();
        self.entries.get_mut(key).is_some_and(|entry| entry.revoke(now))
    }

    fn force_release(&mut self, key: &LockKey) -> bool {
        let now = self.now();
        let Some(entry) = self.entries.get_mut(key) else { return false };
        entry.expire(now);
        let held = !entry.granted.is_empty();
        entry.granted.clear();
        let is_empty = entry.is_empty();
        self.notify(key, is_empty);
        held
    }

    /// Wakes the watches of a changed entry, and removes the entry if it is empty.
    fn notify(&mut self, key: &LockKey, is_empty: bool) {
        const MAX_SPARE: usize = 16;
        if is_empty
            && let Some(record) = self.entries.remove(key)
            && self.spare.len() < MAX_SPARE
            && record.granted.capacity().max(record.queue.capacity()) <= MAX_SPARE
        {
            self.spare.push(record);
        }
        if self.watches.is_empty() {
            return;
        }
        for bell in self.watches.get(key).into_iter().flatten() {
            bell.ring();
        }
    }

    /// Removes expired entries. To be called whenever the map has doubled since the last sweep: it then has at most
    /// twice as many entries as are in use.
    fn sweep(&mut self, now: Micros) {
        self.entries.retain(|_, entry| {
            entry.expire(now);
            !entry.is_empty()
        });
        self.sweep_at = self.entries.len() * 2;
    }
}

impl Backend for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::MEMORY
    }

    fn try_acquire<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        Answer::ready(Ok(self.lock().try_acquire(claim)))
    }

    fn try_acquire_set<'a>(
        &'a self,
        claims: &'a [Claim],
    ) -> Answer<'a, Result<SetAttempt, BackendError>> {
        Answer::ready(Ok(self.lock().try_acquire_set(claims)))
    }

    fn try_acquire_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Attempt> {
        let mut state = self.lock();
        Answers::ready(claims.iter().map(|claim| Ok(state.try_acquire(claim))))
    }

    fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
        Answer::ready(Ok(self.lock().renew(claim)))
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Renewal> {
        let mut state = self.lock();
        Answers::ready(claims.iter().map(|claim| Ok(state.renew(claim))))
    }

    fn release_many<'a>(&'a self, releases: &'a [(Claim, Release)]) -> Answers<'a, Released> {
        let mut state = self.lock();
        Answers::ready(releases.iter().map(|(claim, release)| Ok(state.release(claim, *release))))
    }

    fn release<'a>(
        &'a self,
        claim: &'a Claim,
        release: Release,
    ) -> Answer<'a, Result<Released, BackendError>> {
        Answer::ready(Ok(self.lock().release(claim, release)))
    }

    fn watch<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
        let bell = Arc::new(Bell::default());
        self.lock().watches.entry(key.clone()).or_default().push(Arc::clone(&bell));
        Answer::ready(Ok(Box::new(MemoryWatch { memory: self.clone(), key: key.clone(), bell })))
    }

    fn inspect<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Option<Holder>, BackendError>> {
        Answer::ready(Ok(self.lock().inspect(key)))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Result<Vec<LockState>, BackendError>> {
        Answer::ready(Ok(self.lock().list(prefix)))
    }

    fn revoke<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        Answer::ready(Ok(self.lock().revoke(key)))
    }

    fn force_release<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        Answer::ready(Ok(self.lock().force_release(key)))
    }
}

/// A wake-up for one watch. Any number of rings between two polls count as one.
#[derive(Debug, Default)]
struct Bell(Mutex<(bool, Option<Waker>)>);

impl Bell {
    fn ring(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn poll_heard(&self, waker: &Waker) -> Poll<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut state.0) {
            return Poll::Ready(());
        }
        state.1 = Some(waker.clone());
        Poll::Pending
    }
}

struct MemoryWatch {
    memory: Memory,
    key: LockKey,
    bell: Arc<Bell>,
}

impl Watch for MemoryWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(poll_fn(|cx| self.bell.poll_heard(cx.waker())))
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        if let Some(bells) = state.watches.get_mut(&self.key) {
            bells.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
            if bells.is_empty() {
                state.watches.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_stays_behind_after_a_release() {
        let memory = Memory::new();
        let claim = Claim::new("k".into(), Duration::from_secs(5));
        memory.try_acquire(&claim).await.unwrap();
        drop(memory.watch(&claim.key).await.unwrap());
        memory.release(&claim, Release::default()).await.unwrap();
        let state = memory.lock();
        assert!(state.entries.is_empty() && state.watches.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn expired_leases_do_not_pile_up() {
        let memory = Memory::new();
        for number in 0..1_000 {
            let claim = Claim::new(format!("k{number}").into(), Duration::from_millis(1));
            memory.try_acquire(&claim).await.unwrap();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(memory.lock().entries.len() <= 130);
    }
}
