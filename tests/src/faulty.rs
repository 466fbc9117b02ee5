//! A memory backend with a selectable defect. The conformance suite must catch each of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dlock_runtime::backend::{
    Answer, Attempt, Backend, Capabilities, Claim, Holder, LockState, Release, Released, Renewal,
    Watch,
};
use dlock_runtime::{BackendError, ClientInfo, FencingToken, LockKey, OwnerId};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

/// The defect of a [`Faulty`] store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// No defect: the control.
    None,
    /// A release by anyone ends the lease.
    ReleaseWithoutOwnerCheck,
    /// The reported validity counts from the reply, not from the request.
    ValidityFromReply,
    /// Every grant has the same token.
    ConstantToken,
    /// A waiter's token is drawn on its first attempt.
    TokenBeforeWait,
    /// A block of tokens is granted, and only its first token is recorded.
    BlockNotRecorded,
    /// Checking and acquiring are two separate steps.
    AcquireNotAtomic,
    /// Waiters are not notified of a release.
    MissedWakeUp,
    /// A renewal after the release acquires the key again.
    RenewalRevives,
    /// The release of an abandoned acquire does nothing.
    LeakOnCancel,
    /// Grants an abandoned acquire that is executed after its release.
    LateAcquireGrants,
    /// A revoked hold is renewed.
    RevokedIsRenewed,
    /// A revocation ends the hold at once.
    RevocationFrees,
}

/// An in-memory store that answers with a delay, so that other tasks run in between.
#[derive(Clone, Debug)]
pub struct Faulty {
    defect: Defect,
    state: Arc<Mutex<State>>,
    freed: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct State {
    leases: HashMap<LockKey, Lease>,
    last_token: u64,
    /// Tokens drawn too early, for [`Defect::TokenBeforeWait`].
    early: HashMap<OwnerId, u64>,
    /// Owner ids that were released before an acquire that may arrive late.
    abandoned: HashSet<OwnerId>,
}

#[derive(Clone, Debug)]
struct Lease {
    owner: Option<OwnerId>,
    token: u64,
    ends: Instant,
    revoked: bool,
    client_info: Option<ClientInfo>,
}

impl Lease {
    fn of(claim: &Claim, token: u64) -> Self {
        Self {
            owner: Some(claim.owner),
            token,
            ends: Instant::now() + claim.ttl,
            revoked: false,
            client_info: Some(claim.client_info.clone()),
        }
    }
}

impl State {
    fn live(&self, key: &LockKey) -> Option<&Lease> {
        self.leases.get(key).filter(|lease| lease.ends > Instant::now())
    }

    fn draw(&mut self, tokens: u16) -> u64 {
        self.last_token += u64::from(tokens);
        self.last_token
    }
}

impl Faulty {
    /// Creates a store with this defect.
    #[must_use]
    pub fn new(defect: Defect) -> Self {
        Self { defect, state: Arc::default(), freed: Arc::default() }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn try_acquire(&self, claim: &Claim) -> Attempt {
        yield_now().await;
        if self.has(Defect::AcquireNotAtomic) {
            if let Some(busy) = self.check(&mut self.state(), claim) {
                return busy;
            }
            yield_now().await;
        }
        let last = {
            let mut state = self.state();
            if !self.has(Defect::AcquireNotAtomic)
                && let Some(busy) = self.check(&mut state, claim)
            {
                return busy;
            }
            self.grant_lease(&mut state, claim)
        };
        // The reply is on its way.
        let mut validity = claim.ttl;
        if self.has(Defect::ValidityFromReply) {
            sleep(Duration::from_millis(50)).await;
            validity += Duration::from_millis(50);
        }
        yield_now().await;
        let block = match self.defect {
            Defect::ConstantToken | Defect::TokenBeforeWait => 1,
            _ => claim.token_block,
        };
        let first = match self.defect {
            Defect::BlockNotRecorded => last,
            _ => last - u64::from(block - 1),
        };
        Attempt::granted(FencingToken::new(first), validity).with_token_block(block)
    }

    /// Returns `Busy` if another owner holds the key.
    fn check(&self, state: &mut State, claim: &Claim) -> Option<Attempt> {
        if state.abandoned.contains(&claim.owner) {
            return Some(Attempt::busy(None));
        }
        if self.has(Defect::TokenBeforeWait) && !state.early.contains_key(&claim.owner) {
            let token = state.draw(1);
            state.early.insert(claim.owner, token);
        }
        let lease = state.live(&claim.key).filter(|lease| lease.owner != Some(claim.owner))?;
        Some(Attempt::busy(Some(lease.ends.saturating_duration_since(Instant::now()))))
    }

    fn grant_lease(&self, state: &mut State, claim: &Claim) -> u64 {
        let again = state.live(&claim.key).filter(|lease| lease.owner == Some(claim.owner));
        let token = match (again.map(|lease| lease.token), self.defect) {
            (Some(token), _) => token,
            (None, Defect::ConstantToken) => 1,
            (None, Defect::TokenBeforeWait) => state.early[&claim.owner],
            (None, Defect::BlockNotRecorded) => state.draw(1),
            (None, _) => state.draw(claim.token_block),
        };
        state.leases.insert(claim.key.clone(), Lease::of(claim, token));
        token
    }

    async fn renew(&self, claim: &Claim) -> Renewal {
        yield_now().await;
        let mut state = self.state();
        let renewable = |lease: &Lease| {
            let revoked = lease.revoked && !self.has(Defect::RevokedIsRenewed);
            lease.owner == Some(claim.owner) && !revoked
        };
        let holds = state.live(&claim.key).is_some_and(renewable);
        let free = state.live(&claim.key).is_none();
        if holds || (free && self.has(Defect::RenewalRevives)) {
            let token = state.live(&claim.key).map_or(0, |lease| lease.token);
            state.leases.insert(claim.key.clone(), Lease::of(claim, token));
            return Renewal::Renewed { validity: claim.ttl };
        }
        Renewal::NotHeld
    }

    async fn release(&self, claim: &Claim, release: Release) -> Released {
        yield_now().await;
        if release.late_acquire && self.has(Defect::LeakOnCancel) {
            return Released::NotHeld;
        }
        let mut state = self.state();
        if release.late_acquire && !self.has(Defect::LateAcquireGrants) {
            state.abandoned.insert(claim.owner);
        }
        let holds = state.live(&claim.key).is_some_and(|lease| lease.owner == Some(claim.owner));
        if !holds && !self.has(Defect::ReleaseWithoutOwnerCheck) {
            return Released::NotHeld;
        }
        if let (Some(rest), Some(lease)) = (release.keep_for, state.leases.get_mut(&claim.key)) {
            lease.owner = None;
            lease.ends = Instant::now() + rest;
        } else {
            state.leases.remove(&claim.key);
            self.freed.send_modify(|count| *count += 1);
        }
        Released::Released
    }
}

impl Backend for Faulty {
    fn kind(&self) -> &'static str {
        "faulty"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LEASES.with_shared_by_processes(false)
    }

    fn try_acquire<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        Answer::from_future(async { Ok(self.try_acquire(claim).await) })
    }

    fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
        Answer::from_future(async { Ok(self.renew(claim).await) })
    }

    fn release<'a>(
        &'a self,
        claim: &'a Claim,
        release: Release,
    ) -> Answer<'a, Result<Released, BackendError>> {
        Answer::from_future(async move { Ok(self.release(claim, release).await) })
    }

    fn watch<'a>(&'a self, _: &'a LockKey) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
        let freed = (!self.has(Defect::MissedWakeUp)).then(|| self.freed.subscribe());
        Answer::ready(Ok(Box::new(FaultyWatch(freed))))
    }

    fn inspect<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Option<Holder>, BackendError>> {
        let state = self.state();
        Answer::ready(Ok(state.live(key).map(|lease| {
            let left = lease.ends.saturating_duration_since(Instant::now());
            Holder::new(lease.owner, FencingToken::new(lease.token), left)
        })))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Result<Vec<LockState>, BackendError>> {
        let state = self.state();
        let now = Instant::now();
        let held = state
            .leases
            .iter()
            .filter(|(key, lease)| key.as_str().starts_with(prefix) && lease.ends > now);
        let states = held.map(|(key, lease)| {
            let left = lease.ends.saturating_duration_since(now);
            let holder = Holder::new(lease.owner, FencingToken::new(lease.token), left)
                .with_client_info(lease.client_info.clone())
                .with_revoked(lease.revoked);
            LockState::new(key.clone(), vec![holder], vec![])
        });
        let mut states: Vec<_> = states.collect();
        states.sort_by(|one, other| one.key.cmp(&other.key));
        Answer::ready(Ok(states))
    }

    fn revoke<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        let mut state = self.state();
        let live = state.live(key).is_some();
        if self.has(Defect::RevocationFrees) {
            state.leases.remove(key);
        } else if let Some(lease) = state.leases.get_mut(key).filter(|_| live) {
            lease.revoked = true;
        }
        Answer::ready(Ok(live))
    }

    fn force_release<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        let mut state = self.state();
        let held = state.live(key).is_some();
        state.leases.remove(key);
        self.freed.send_modify(|count| *count += 1);
        Answer::ready(Ok(held))
    }
}

struct FaultyWatch(Option<watch::Receiver<u64>>);

impl Watch for FaultyWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(async {
            match &mut self.0 {
                // The store outlives its watches.
                Some(freed) => drop(freed.changed().await),
                None => std::future::pending().await,
            }
        })
    }
}
