//! A wrapper around a backend that counts its calls, delays or loses their answers, and makes them fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::backend::{
    Answer, Answers, Attempt, Backend, Capabilities, Claim, Holder, LockState, Release, Released,
    Renewal, SetAttempt, Watch,
};
use crate::error::BackendError;
use crate::key::LockKey;

/// The kinds of calls that can be intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`Backend::try_acquire`] and [`Backend::acquire_queued`], and each claim of a [`Backend::try_acquire_many`].
    Acquire,
    /// [`Backend::renew`], and each claim of a [`Backend::renew_many`].
    Renew,
    /// [`Backend::release`], and each claim of a [`Backend::release_many`].
    Release,
}

/// A backend whose calls are counted and can be made to fail, delayed or lost. Clones share their state.
#[derive(Clone, Debug)]
pub struct Intercepted {
    inner: Arc<dyn Backend>,
    state: Arc<Mutex<State>>,
    held_up: Arc<watch::Sender<Vec<Call>>>,
}

#[derive(Debug, Default)]
struct State {
    counts: HashMap<Call, usize>,
    /// The same, but a request with many claims counts once.
    requests: HashMap<Call, usize>,
    /// How many calls the backend has answered.
    answered: HashMap<Call, usize>,
    failing: Vec<Call>,
    /// How many of the next calls lose their answer.
    losing: HashMap<Call, usize>,
}

impl Intercepted {
    /// Wraps a backend. All calls pass through at first.
    #[must_use]
    pub fn new(backend: impl Backend) -> Self {
        Self { inner: Arc::new(backend), state: Arc::default(), held_up: Arc::default() }
    }

    /// Returns how many calls of this kind were made.
    #[must_use]
    pub fn count(&self, call: Call) -> usize {
        self.state().counts.get(&call).copied().unwrap_or(0)
    }

    /// Returns in how many requests these calls were made. A request with many claims counts once.
    #[must_use]
    pub fn requests(&self, call: Call) -> usize {
        self.state().requests.get(&call).copied().unwrap_or(0)
    }

    /// Makes calls of this kind fail transiently from now on, without reaching the backend.
    pub fn fail(&self, call: Call) {
        self.state().failing.push(call);
    }

    /// Delays the answers to calls of this kind until [`heal`](Self::heal). The calls still reach the backend.
    pub fn delay(&self, call: Call) {
        self.held_up.send_modify(|calls| calls.push(call));
    }

    /// Loses the answers to the next `answers` calls of this kind. The calls still reach the backend.
    pub fn lose(&self, call: Call, answers: usize) {
        self.state().losing.insert(call, answers);
    }

    /// Lets all calls pass through again. Answers that were lost stay lost.
    pub fn heal(&self) {
        let mut state = self.state();
        state.failing.clear();
        state.losing.clear();
        drop(state);
        self.held_up.send_modify(Vec::clear);
    }

    /// Resolves when `count` calls of this kind have been made.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn reached(&self, call: Call, count: usize) {
        while self.count(call) < count {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Resolves when the backend has answered `count` calls of this kind, even if the answers are delayed or lost.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn answered(&self, call: Call, count: usize) {
        while self.state().answered.get(&call).copied().unwrap_or(0) < count {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Resolves when the first acquire through this backend is a waiter.
    ///
    /// A waiter that polls has got the first answer when it sends its second request. In a store with a queue, the
    /// first request is given time to join it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn waits_in_queue(&self) {
        if self.capabilities().queue {
            self.reached(Call::Acquire, 1).await;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        } else {
            self.reached(Call::Acquire, 2).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass<'a, T: Send + Unpin + 'a>(
        &'a self,
        call: Call,
        ask: impl FnOnce() -> Answer<'a, Result<T, BackendError>>,
    ) -> Answer<'a, Result<T, BackendError>> {
        *self.state().requests.entry(call).or_default() += 1;
        self.pass_one(call, ask)
    }

    /// Passes a request with many claims: as it is while nothing is to happen to its calls, otherwise one by one.
    fn pass_many<'a, C: Sync, T: Send + Unpin + 'a>(
        &'a self,
        call: Call,
        claims: &'a [C],
        ask_one: impl Fn(&'a C) -> Answer<'a, Result<T, BackendError>>,
        ask_all: impl FnOnce(&'a [C]) -> Answers<'a, T>,
    ) -> Answers<'a, T> {
        *self.state().requests.entry(call).or_default() += 1;
        let is_held_up = self.held_up.borrow().contains(&call);
        if is_held_up || self.state().is_faulty(call) {
            return Answers::each(claims, |claim| self.pass_one(call, || ask_one(claim)));
        }
        *self.state().counts.entry(call).or_default() += claims.len();
        let answers = ask_all(claims);
        let mut held_up = self.held_up.subscribe();
        Answers::from_future(async move {
            let all = answers.all(claims.len()).await;
            *self.state().answered.entry(call).or_default() += claims.len();
            let _ = held_up.wait_for(|calls| !calls.contains(&call)).await;
            all
        })
    }

    fn pass_one<'a, T: Send + Unpin + 'a>(
        &'a self,
        call: Call,
        ask: impl FnOnce() -> Answer<'a, Result<T, BackendError>>,
    ) -> Answer<'a, Result<T, BackendError>> {
        let (failing, lost) = self.state().note(call);
        if failing {
            return Answer::ready(Err(BackendError::transient("failed on purpose")));
        }
        let answer = ask();
        if answer.is_ready() {
            self.state().has_answered(call);
        }
        if !lost && answer.is_ready() && !self.held_up.borrow().contains(&call) {
            return answer;
        }
        let mut held_up = self.held_up.subscribe();
        Answer::from_future(async move {
            let was_ready = answer.is_ready();
            let answer = answer.await;
            if !was_ready {
                self.state().has_answered(call);
            }
            if lost {
                std::future::pending::<()>().await;
            }
            let _ = held_up.wait_for(|calls| !calls.contains(&call)).await;
            answer
        })
    }
}

impl State {
    fn has_answered(&mut self, call: Call) {
        *self.answered.entry(call).or_default() += 1;
    }

    fn is_faulty(&self, call: Call) -> bool {
        self.failing.contains(&call) || self.losing.get(&call).is_some_and(|left| *left > 0)
    }

    /// Counts a call. Returns whether it fails, and whether its answer is lost.
    fn note(&mut self, call: Call) -> (bool, bool) {
        *self.counts.entry(call).or_default() += 1;
        let failing = self.failing.contains(&call);
        let losing = self.losing.get_mut(&call).filter(|left| !failing && **left > 0);
        let lost = losing.map(|left| *left -= 1).is_some();
        (failing, lost)
    }
}

impl Backend for Intercepted {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn try_acquire<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        self.pass(Call::Acquire, || self.inner.try_acquire(claim))
    }

    fn try_acquire_set<'a>(
        &'a self,
        claims: &'a [Claim],
    ) -> Answer<'a, Result<SetAttempt, BackendError>> {
        self.pass(Call::Acquire, || self.inner.try_acquire_set(claims))
    }

    fn try_acquire_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Attempt> {
        let one = |claim| self.inner.try_acquire(claim);
        self.pass_many(Call::Acquire, claims, one, |claims| self.inner.try_acquire_many(claims))
    }

    fn acquire_queued<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        self.pass(Call::Acquire, || self.inner.acquire_queued(claim))
    }

    fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
        self.pass(Call::Renew, || self.inner.renew(claim))
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Renewal> {
        let one = |claim| self.inner.renew(claim);
        self.pass_many(Call::Renew, claims, one, |claims| self.inner.renew_many(claims))
    }

    fn release_many<'a>(&'a self, releases: &'a [(Claim, Release)]) -> Answers<'a, Released> {
        let one = |(claim, release): &'a (Claim, Release)| self.inner.release(claim, *release);
        self.pass_many(Call::Release, releases, one, |releases| self.inner.release_many(releases))
    }

    fn release<'a>(
        &'a self,
        claim: &'a Claim,
        release: Release,
    ) -> Answer<'a, Result<Released, BackendError>> {
        self.pass(Call::Release, || self.inner.release(claim, release))
    }

    fn watch<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
        self.inner.watch(key)
    }

    fn watch_for<'a>(
        &'a self,
        claim: &'a Claim,
    ) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
        self.inner.watch_for(claim)
    }

    fn inspect<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Option<Holder>, BackendError>> {
        self.inner.inspect(key)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Result<Vec<LockState>, BackendError>> {
        self.inner.list(prefix)
    }

    fn revoke<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        self.inner.revoke(key)
    }

    fn force_release<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        self.inner.force_release(key)
    }
}
