//! A store with one defect in how it handles shared locks, permits or fairness, or in what it
//! promises the engine.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dlock_runtime::backend::{
    Answer, Attempt, Backend, Capabilities, Claim, Holder, LockState, Memory, Mode, Release,
    Released, Renewal, SetAttempt, Watch,
};
use dlock_runtime::{BackendError, LockKey, OwnerId};
use tokio::runtime::{self, Handle};

/// The defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carelessness {
    /// No defect: the control.
    None,
    /// Readers exclude each other.
    ReadersAreWriters,
    /// Readers do not exclude writers.
    ReadersAreNobody,
    /// A waiting writer does not exclude later readers.
    WritersArePassed,
    /// Grants one holder more than there are permits.
    OneMore,
    /// Waiters have no order.
    NoOrder,
    /// A waiter that gave up keeps its queue position.
    PlacesStay,
    /// A forced release ends only one of several holds.
    ForcesOne,
    /// If a set is refused, the store keeps the keys that were free.
    SetsInParts,
    /// Grants an abandoned acquire, of one key or a set, that is executed after its release.
    LateAcquireGrants,
    /// Reports a lease as valid for longer than it lasts.
    EndlessValidity,
    /// A renewal that is sent a second time finds no lease.
    RenewsOnce,
    /// A forced release reports that it has ended a lease, but does nothing.
    ForcesNothing,
    /// Answers arrive only in the runtime in which the key was acquired.
    BoundToItsRuntime,
    /// Blocks the thread during each call.
    BlocksItsThread,
}

/// The factor by which the validity is too long.
const ENDLESS: u32 = 100;

/// The memory backend with one of these defects.
#[derive(Clone, Debug)]
pub struct Careless {
    store: Memory,
    readers: Memory,
    how: Carelessness,
    noted: Arc<Mutex<Noted>>,
}

/// The state that a defect needs.
#[derive(Debug, Default)]
struct Noted {
    renewed: HashSet<OwnerId>,
    runtimes: HashMap<OwnerId, runtime::Id>,
}

impl Careless {
    /// Creates a store with this defect.
    #[must_use]
    pub fn new(how: Carelessness) -> Self {
        Self { store: Memory::new(), readers: Memory::new(), how, noted: Arc::default() }
    }

    fn claim(&self, claim: &Claim) -> Claim {
        let claim = claim.clone();
        match (self.how, claim.mode) {
            (Carelessness::ReadersAreWriters, Mode::Shared) => claim.with_mode(Mode::Exclusive),
            (Carelessness::WritersArePassed, Mode::Exclusive) if !claim.fair => {
                claim.with_wait_left(Duration::ZERO)
            }
            (Carelessness::OneMore, Mode::Permits(permits)) => {
                claim.with_mode(Mode::Permits(permits.saturating_add(NonZeroU32::MIN.get())))
            }
            (Carelessness::NoOrder, _) => claim.with_fair(false),
            _ => claim,
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the claim was acquired in another runtime.
    fn is_from_another_runtime(&self, claim: &Claim) -> bool {
        let here = Handle::try_current().ok().map(|runtime| runtime.id());
        let there = self.noted().runtimes.get(&claim.owner).copied();
        self.how == Carelessness::BoundToItsRuntime && there.is_some() && there != here
    }

    async fn attempt(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.how == Carelessness::BlocksItsThread {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.noted().runtimes.insert(claim.owner, Handle::current().id());
        let attempt = self.store(claim).try_acquire(&self.claim(claim)).await?;
        Ok(match attempt {
            Attempt::Granted { token, .. } if self.how == Carelessness::EndlessValidity => {
                Attempt::granted(token, claim.ttl * ENDLESS)
            }
            attempt => attempt,
        })
    }

    fn store(&self, claim: &Claim) -> &Memory {
        match (self.how, claim.mode) {
            (Carelessness::ReadersAreNobody, Mode::Shared) => &self.readers,
            _ => &self.store,
        }
    }
}

impl Backend for Careless {
    fn kind(&self) -> &'static str {
        "careless"
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn try_acquire<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        Answer::from_future(self.attempt(claim))
    }

    fn try_acquire_set<'a>(
        &'a self,
        claims: &'a [Claim],
    ) -> Answer<'a, Result<SetAttempt, BackendError>> {
        if self.how != Carelessness::SetsInParts {
            return self.store.try_acquire_set(claims);
        }
        Answer::from_future(async move {
            let (mut tokens, mut shortest) = (vec![], Duration::MAX);
            for (at, claim) in claims.iter().enumerate() {
                match self.store.try_acquire(claim).await? {
                    Attempt::Granted { token, validity, .. } => {
                        tokens.push(token);
                        shortest = shortest.min(validity);
                    }
                    _ => return Ok(SetAttempt::busy(at, None, false)),
                }
            }
            Ok(SetAttempt::granted(tokens, shortest))
        })
    }

    fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
        if self.how == Carelessness::RenewsOnce && !self.noted().renewed.insert(claim.owner) {
            return Answer::ready(Ok(Renewal::NotHeld));
        }
        self.store(claim).renew(claim)
    }

    fn release<'a>(
        &'a self,
        claim: &'a Claim,
        mut release: Release,
    ) -> Answer<'a, Result<Released, BackendError>> {
        if self.is_from_another_runtime(claim) {
            return Answer::from_future(std::future::pending());
        }
        release.late_acquire &= self.how != Carelessness::LateAcquireGrants;
        if self.how == Carelessness::PlacesStay && claim.token.is_none() {
            return Answer::ready(Ok(Released::NotHeld));
        }
        self.store(claim).release(claim, release)
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
        match self.how {
            Carelessness::ForcesOne => {}
            Carelessness::ForcesNothing => return Answer::ready(Ok(true)),
            _ => return self.store.force_release(key),
        }
        Answer::from_future(async move {
            let Some(holder) = self.store.inspect(key).await? else { return Ok(false) };
            let mut claim = Claim::new(key.clone(), Duration::from_secs(1));
            claim.owner = holder.owner.unwrap_or(claim.owner);
            let released = self.store.release(&claim, Release::default()).await?;
            Ok(released == Released::Released)
        })
    }
}
