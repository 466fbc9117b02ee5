//! Locks inside one process: for tests, single-process services, and as the plainest reading of
//! the backend contract.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::time::Instant;

use super::{
    Answer, Attempt, Backend, Capabilities, Claim, Holder, Release, Released, Renewal, Watch,
};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// Leases in a map of this process.
///
/// Clones share their locks, so that two registries over clones of one `Memory` exclude each other
/// as two processes over one server would. Its time is tokio's: with a paused clock every lease is
/// exact.
///
/// Nothing survives the process, tokens included: they are comparable only within its life.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    leases: HashMap<LockKey, Lease>,
    sweep_at: usize,
    /// One counter for all keys: it needs no entry per key, so nothing is left behind.
    last_token: u64,
    watches: HashMap<LockKey, Vec<Arc<Bell>>>,
}

#[derive(Debug)]
struct Lease {
    /// `None` while a released key is kept locked for the rest of its `min_hold`.
    owner: Option<OwnerId>,
    token: FencingToken,
    ends: Instant,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same as [`Memory::new`], in the form that every backend has; the URL is `memory:`.
    ///
    /// # Errors
    /// A permanent error if the URL is of another scheme or names anything behind it.
    #[allow(clippy::unused_async, reason = "every backend connects in one form")]
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        match url {
            "memory:" | "memory://" => Ok(Self::new()),
            _ => Err(BackendError::permanent("a memory backend's URL is `memory:`, nothing more")
                .not_sent()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn live(&mut self, key: &LockKey) -> Option<&mut Lease> {
        // An expired lease stays until the key is next granted or swept out with others.
        self.leases.get_mut(key).filter(|lease| lease.ends > Instant::now())
    }

    fn held_by(&mut self, claim: &Claim) -> Option<&mut Lease> {
        self.live(&claim.key).filter(|lease| lease.owner == Some(claim.owner))
    }

    fn try_acquire(&mut self, claim: &Claim) -> Attempt {
        let ends = Instant::now() + claim.ttl;
        match self.live(&claim.key) {
            Some(lease) if lease.owner == Some(claim.owner) => {
                lease.ends = ends;
                Attempt::granted(lease.token, claim.ttl)
            }
            Some(lease) => {
                Attempt::busy(Some(lease.ends.saturating_duration_since(Instant::now())))
            }
            None => {
                self.last_token += 1;
                let token = FencingToken::new(self.last_token);
                let lease = Lease { owner: Some(claim.owner), token, ends };
                self.sweep();
                self.leases.insert(claim.key.clone(), lease);
                Attempt::granted(token, claim.ttl)
            }
        }
    }

    /// Throws out what has expired, whenever the map has doubled since the last time: it stays within
    /// twice what is held.
    fn sweep(&mut self) {
        const SMALLEST: usize = 64;
        if self.leases.len() >= self.sweep_at.max(SMALLEST) {
            let now = Instant::now();
            self.leases.retain(|_, lease| lease.ends > now);
            self.sweep_at = self.leases.len() * 2;
        }
    }

    fn release(&mut self, claim: &Claim, release: Release) -> Released {
        let Some(lease) = self.held_by(claim) else {
            return Released::NotHeld;
        };
        match release.keep_for {
            Some(rest) => {
                lease.owner = None;
                lease.ends = Instant::now() + rest;
            }
            None => self.free(&claim.key),
        }
        Released::Released
    }

    fn free(&mut self, key: &LockKey) {
        self.leases.remove(key);
        for bell in self.watches.get(key).into_iter().flatten() {
            bell.ring();
        }
    }
}

impl Backend for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LEASES.with_shared_by_processes(false)
    }

    fn try_acquire<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        Answer::ready(Ok(self.lock().try_acquire(claim)))
    }

    fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
        let renewal = match self.lock().held_by(claim) {
            Some(lease) => {
                lease.ends = Instant::now() + claim.ttl;
                Renewal::Renewed { validity: claim.ttl }
            }
            None => Renewal::NotHeld,
        };
        Answer::ready(Ok(renewal))
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
        let holder = self.lock().live(key).map(|lease| {
            let expires_in = lease.ends.saturating_duration_since(Instant::now());
            Holder::new(lease.owner, lease.token, expires_in)
        });
        Answer::ready(Ok(holder))
    }

    fn force_release<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        let mut state = self.lock();
        let held = state.live(key).is_some();
        state.free(key);
        Answer::ready(Ok(held))
    }
}

/// Rings once for any number of changes until it is heard.
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
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_stays_behind_after_a_release() {
        let memory = Memory::new();
        let claim = Claim::new("k".into(), Duration::from_secs(5));
        memory.try_acquire(&claim).await.unwrap();
        drop(memory.watch(&claim.key).await.unwrap());
        memory.release(&claim, Release::default()).await.unwrap();
        let state = memory.lock();
        assert!(state.leases.is_empty() && state.watches.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn expired_leases_do_not_pile_up() {
        let memory = Memory::new();
        for number in 0..1_000 {
            let claim = Claim::new(format!("k{number}").into(), Duration::from_millis(1));
            memory.try_acquire(&claim).await.unwrap();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(memory.lock().leases.len() <= 130);
    }
}
