//! A store with one defect: in shared locks, permits, fairness or sets, or in what it promises the engine.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dlock_runtime::backend::{
    Answer, Answers, Attempt, Backend, Capabilities, Claim, Holder, LockState, Memory, Mode,
    Release, Released, Renewal, SetAttempt, Watch,
};
use dlock_runtime::{BackendError, LockKey, OwnerId};
use tokio::runtime::{self, Handle};

/// The defect of a [`Defective`] store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None: the control.
    None,
    /// Readers do not share.
    ReadersAreExclusive,
    /// Readers do not exclude writers.
    ReadersDoNotBlockWriters,
    /// New readers overtake a waiting writer.
    ReadersOvertakeWriters,
    /// Grants one more holder than there are permits.
    OnePermitTooMany,
    /// Waiters are not served in order.
    Unordered,
    /// A waiter that gave up keeps its queue position.
    AbandonedPositionsStay,
    /// A forced release ends only one of several holders.
    ForceReleaseEndsOne,
    /// A refused set keeps the keys that were free.
    PartialSets,
    /// An abandoned acquire, or set, that is executed after its release is granted.
    LateAcquireGrants,
    /// Reports a validity that is longer than the lease.
    ValidityTooLong,
    /// The second renewal of a lease reports that it is not held.
    RenewsOnce,
    /// A request with several claims is refused if one of them is.
    NeighboursShareAnswers,
    /// A forced release reports success and does nothing.
    ForceReleaseDoesNothing,
    /// A release is answered only in the runtime in which the key was acquired.
    BoundToItsRuntime,
    /// Blocks the thread during an acquire.
    BlocksTheThread,
}

/// How many times too long a reported validity is.
const VALIDITY_FACTOR: u32 = 100;

/// The memory backend with one defect.
#[derive(Clone, Debug)]
pub struct Defective {
    store: Memory,
    readers: Memory,
    flaw: Flaw,
    noted: Arc<Mutex<Noted>>,
}

/// The state that some defects need.
#[derive(Debug, Default)]
struct Noted {
    renewed: HashSet<OwnerId>,
    runtimes: HashMap<OwnerId, runtime::Id>,
}

impl Defective {
    /// A new store.
    #[must_use]
    pub fn new(flaw: Flaw) -> Self {
        Self { store: Memory::new(), readers: Memory::new(), flaw, noted: Arc::default() }
    }

    fn claim(&self, claim: &Claim) -> Claim {
        let claim = claim.clone();
        match (self.flaw, claim.mode) {
            (Flaw::ReadersAreExclusive, Mode::Shared) => claim.with_mode(Mode::Exclusive),
            (Flaw::ReadersOvertakeWriters, Mode::Exclusive) if !claim.fair => {
                claim.with_wait_left(Duration::ZERO)
            }
            (Flaw::OnePermitTooMany, Mode::Permits(permits)) => {
                claim.with_mode(Mode::Permits(permits.saturating_add(NonZeroU32::MIN.get())))
            }
            (Flaw::Unordered, _) => claim.with_fair(false),
            _ => claim,
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if the claim was acquired in another runtime.
    fn is_from_another_runtime(&self, claim: &Claim) -> bool {
        let here = Handle::try_current().ok().map(|runtime| runtime.id());
        let there = self.noted().runtimes.get(&claim.owner).copied();
        self.flaw == Flaw::BoundToItsRuntime && there.is_some() && there != here
    }

    async fn attempt(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.flaw == Flaw::BlocksTheThread {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.noted().runtimes.insert(claim.owner, Handle::current().id());
        let attempt = self.store(claim).try_acquire(&self.claim(claim)).await?;
        Ok(match attempt {
            Attempt::Granted { token, .. } if self.flaw == Flaw::ValidityTooLong => {
                Attempt::granted(token, claim.ttl * VALIDITY_FACTOR)
            }
            attempt => attempt,
        })
    }

    fn store(&self, claim: &Claim) -> &Memory {
        match (self.flaw, claim.mode) {
            (Flaw::ReadersDoNotBlockWriters, Mode::Shared) => &self.readers,
            _ => &self.store,
        }
    }
}

impl Backend for Defective {
    fn kind(&self) -> &'static str {
        "defective"
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
        if self.flaw != Flaw::PartialSets {
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
        if self.flaw == Flaw::RenewsOnce && !self.noted().renewed.insert(claim.owner) {
            return Answer::ready(Ok(Renewal::NotHeld));
        }
        self.store(claim).renew(claim)
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Renewal> {
        if self.flaw != Flaw::NeighboursShareAnswers {
            return Answers::each(claims, |claim| self.renew(claim));
        }
        Answers::from_future(async move {
            let all = self.store.renew_many(claims).all(claims.len()).await;
            let refused = all.iter().any(|one| matches!(one, Ok(Renewal::NotHeld)));
            all.into_iter().map(|one| if refused { Ok(Renewal::NotHeld) } else { one }).collect()
        })
    }

    fn release<'a>(
        &'a self,
        claim: &'a Claim,
        mut release: Release,
    ) -> Answer<'a, Result<Released, BackendError>> {
        if self.is_from_another_runtime(claim) {
            return Answer::from_future(std::future::pending());
        }
        release.late_acquire &= self.flaw != Flaw::LateAcquireGrants;
        if self.flaw == Flaw::AbandonedPositionsStay && claim.token.is_none() {
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
        match self.flaw {
            Flaw::ForceReleaseEndsOne => {}
            Flaw::ForceReleaseDoesNothing => return Answer::ready(Ok(true)),
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
