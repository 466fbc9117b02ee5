//! Memory stores, each with one fault.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlock_runtime::backend::{
    Answer, Attempt, Backend, Capabilities, Claim, Holder, LockState, Memory, Release, Released,
    Renewal, SetAttempt, Watch,
};
use dlock_runtime::{BackendError, LockKey};

/// A store that cannot be reached.
#[derive(Clone, Copy, Debug)]
pub enum Unreachable {
    /// The connection is refused at once.
    AtOnce,
    /// It fails after a third of a second.
    AfterAWhile,
    /// No answer ever arrives.
    Silent,
    /// The same, from a store with its own queue.
    SilentQueue,
}

impl Unreachable {
    pub const EACH: [Self; 4] = [Self::AtOnce, Self::AfterAWhile, Self::Silent, Self::SilentQueue];

    fn answer<'a, T: Send + Unpin + 'a>(self) -> Answer<'a, Result<T, BackendError>> {
        let down = || Err(BackendError::transient("the store is down"));
        match self {
            Self::AtOnce => Answer::ready(down()),
            Self::AfterAWhile => Answer::from_future(async move {
                tokio::time::sleep(Duration::from_millis(333)).await;
                down()
            }),
            Self::Silent | Self::SilentQueue => Answer::from_future(pending()),
        }
    }
}

impl Backend for Unreachable {
    fn kind(&self) -> &'static str {
        "unreachable"
    }

    fn capabilities(&self) -> Capabilities {
        Memory::new().capabilities().with_queue(matches!(self, Self::SilentQueue))
    }

    fn try_acquire<'a>(&'a self, _: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        self.answer()
    }

    fn try_acquire_set<'a>(
        &'a self,
        _: &'a [Claim],
    ) -> Answer<'a, Result<SetAttempt, BackendError>> {
        self.answer()
    }

    fn renew<'a>(&'a self, _: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
        self.answer()
    }

    fn release<'a>(
        &'a self,
        _: &'a Claim,
        _: Release,
    ) -> Answer<'a, Result<Released, BackendError>> {
        self.answer()
    }

    fn watch<'a>(&'a self, _: &'a LockKey) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
        self.answer()
    }

    fn inspect<'a>(&'a self, _: &'a LockKey) -> Answer<'a, Result<Option<Holder>, BackendError>> {
        self.answer()
    }

    fn list<'a>(&'a self, _: &'a str) -> Answer<'a, Result<Vec<LockState>, BackendError>> {
        self.answer()
    }

    fn revoke<'a>(&'a self, _: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        self.answer()
    }

    fn force_release<'a>(&'a self, _: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        self.answer()
    }
}

/// The outcome of a renewal.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It is forwarded to the store.
    Passed,
    /// No answer ever arrives.
    Unanswered,
    /// The backend's code panics.
    Panic,
}

/// A memory store that chooses the outcome of each renewal, by the key and the number of earlier
/// ones.
pub struct Renewals {
    store: Memory,
    fate: fn(&LockKey, usize) -> Fate,
    seen: AtomicUsize,
}

impl Renewals {
    pub fn new(fate: fn(&LockKey, usize) -> Fate) -> Self {
        Self { store: Memory::new(), fate, seen: AtomicUsize::new(0) }
    }
}

impl Backend for Renewals {
    fn kind(&self) -> &'static str {
        "renewals"
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn try_acquire<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        self.store.try_acquire(claim)
    }

    fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
        match (self.fate)(&claim.key, self.seen.fetch_add(1, Ordering::SeqCst)) {
            Fate::Passed => self.store.renew(claim),
            Fate::Unanswered => Answer::from_future(pending()),
            Fate::Panic => panic!("a bug in the backend"),
        }
    }

    fn release<'a>(
        &'a self,
        claim: &'a Claim,
        release: Release,
    ) -> Answer<'a, Result<Released, BackendError>> {
        self.store.release(claim, release)
    }

    fn watch<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
        self.store.watch(key)
    }

    fn inspect<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Option<Holder>, BackendError>> {
        self.store.inspect(key)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Result<Vec<LockState>, BackendError>> {
        self.store.list(prefix)
    }

    fn revoke<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        self.store.revoke(key)
    }

    fn force_release<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        self.store.force_release(key)
    }
}
