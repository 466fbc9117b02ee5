//! A claim's key in the queue: how it gets there, what blocks it, and how its lease is kept while it waits.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Etcd;
use super::batches::{Entered, Entry, When};
use super::calls::{Awaited, Kept, OwnKey};
use super::names::Names;
use crate::backend::{Attempt, Claim, Mode, validity_of};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::lock_table::queue::Position;
use crate::stores::shared::claim_leases::{Lease, Start};
use crate::stores::shared::node_queue::QueueView;
use crate::token::FencingToken;

/// For how long a lease provably lasts.
#[derive(Clone, Copy)]
pub(super) struct Validity {
    from: Moment,
    lasts: Duration,
}

/// A claim's key in the queue.
pub(super) struct Place {
    pub(super) own: OwnKey,
    pub(super) lease: i64,
    pub(super) valid: Validity,
}

/// The outcome of an entry into the queue.
pub(super) enum Joined {
    In(Place),
    /// Others are there, and the claim came only to see.
    Out,
    /// The claim was released.
    Released,
}

/// What a claim finds ahead of its key.
pub(super) struct Ahead {
    /// The deletion that it has to wait for, and the revision of the store from which to watch for it. Without one the
    /// claim is admitted.
    pub(super) blocker: Option<(Awaited, i64)>,
    /// The number of permits of a key ahead, if it differs from the claim's own.
    pub(super) other_permits: Option<NonZeroU32>,
}

impl Etcd {
    /// The validity of a lease that a leader has renewed.
    pub(super) fn renewed_validity(&self, ttl: Duration) -> Duration {
        validity_of(ttl).saturating_sub(self.0.stale_leader)
    }

    /// Puts the claim's key into the queue, under a lease. A repeated claim finds the lease and the key that it has.
    pub(super) async fn join_queue(
        &self,
        claim: &Claim,
        names: &Names,
        when: When,
    ) -> Result<Joined, BackendError> {
        self.try_to_join(claim, names, when).await.map_err(|error| {
            // No release follows a request that was not sent.
            let is_undone =
                !error.may_have_been_sent() && self.0.leases.take_back_unsent(&claim.owner);
            if is_undone { error } else { error.maybe_sent() }
        })
    }

    async fn try_to_join(
        &self,
        claim: &Claim,
        names: &Names,
        when: When,
    ) -> Result<Joined, BackendError> {
        let Some(mut lease) = self.lease(claim).await? else { return Ok(Joined::Released) };
        let mut entered = self.enter(claim, names, lease.id, when).await?;
        if entered == Some(Entered::NoLease) {
            // An idle lease may have been revoked by somebody else.
            let Some(another) = self.another_lease(claim, lease.id).await? else {
                return Ok(Joined::Released);
            };
            lease = another;
            entered = self.enter(claim, names, lease.id, when).await?;
        }
        match entered {
            Some(Entered::In(own)) => {
                Ok(Joined::In(Place { own, lease: lease.id, valid: self.validity(claim, &lease) }))
            }
            Some(Entered::Out) => Ok(Joined::Out),
            Some(Entered::NoLease | Entered::Otherwise) => Err(self.0.calls.lapsed()),
            None => Ok(Joined::Released),
        }
    }

    /// Sends the put of the claim's key. `None` if the claim was released.
    async fn enter(
        &self,
        claim: &Claim,
        names: &Names,
        lease: i64,
        when: When,
    ) -> Result<Option<Entered>, BackendError> {
        let leases = &self.0.leases;
        if !leases.puts(&claim.owner, lease) {
            return Ok(None);
        }
        let (queue, own, value) = (names.queue.clone(), names.own.clone(), names.value.clone());
        let entered = self.0.entries.send(Entry { queue, own, value, lease, when }).await;
        // Without an answer, the key may still be put at any time.
        if entered.as_ref().is_err_and(BackendError::may_have_been_sent) {
            return entered.map(Some);
        }
        let is_there = matches!(entered, Ok(Entered::In(_) | Entered::Otherwise));
        let is_wanted = leases.put(&claim.owner, lease, is_there);
        Ok(Some(entered?).filter(|_| is_wanted))
    }

    /// A lease for the claim that lasts: the one that it has, an idle one, or a new one. `None` if the claim was
    /// released.
    async fn lease(&self, claim: &Claim) -> Result<Option<Lease>, BackendError> {
        let is_abandoned = || self.0.tombstones.has(claim);
        let ttl = Duration::from_secs(whole_seconds(claim.ttl).unsigned_abs());
        match self.0.leases.begin(&claim.owner, ttl, is_abandoned) {
            None => Ok(None),
            Some(Start::Nothing(lease)) => Ok(Some(lease)),
            Some(Start::Grant(lease)) => self.grant(claim, lease).await.map(Some),
            Some(Start::Replace(lease)) => self.another_lease(claim, lease.id).await,
            Some(Start::KeepAlive(lease)) => match self.kept_alive(claim, lease).await? {
                Some(lease) => Ok(Some(lease)),
                None => self.another_lease(claim, lease.id).await,
            },
        }
    }

    /// Replaces the claim's lease, which has ended or is about to. `None` if the claim was released.
    async fn another_lease(
        &self,
        claim: &Claim,
        ended: i64,
    ) -> Result<Option<Lease>, BackendError> {
        let leases = &self.0.leases;
        if leases.doom(&claim.owner) != Some(ended) {
            // The claim has another one by now, or none.
            return Ok(None);
        }
        // A server that has just become the leader may not know it yet. No request in flight may put the key under it.
        self.0.calls.revoke(ended).await?;
        match leases.replace(&claim.owner, ended) {
            Some(lease) => self.grant(claim, lease).await.map(Some),
            None => Ok(None),
        }
    }

    async fn grant(&self, claim: &Claim, lease: Lease) -> Result<Lease, BackendError> {
        let lease = Lease { from: Moment::now(), ..lease };
        if !self.0.calls.grant(lease.id, whole_seconds(lease.ttl)).await? {
            return Err(self.0.calls.lapsed());
        }
        self.0.leases.proved(&claim.owner, lease);
        Ok(lease)
    }

    /// Keeps a lease of this process alive. `None` if it has ended.
    pub(super) async fn kept_alive(
        &self,
        claim: &Claim,
        lease: Lease,
    ) -> Result<Option<Lease>, BackendError> {
        let lease = Lease { from: Moment::now(), is_renewed: true, ..lease };
        match self.0.calls.keep_alive(lease.id).await? {
            Kept::Kept => {
                self.0.leases.proved(&claim.owner, lease);
                Ok(Some(lease))
            }
            Kept::Gone => Ok(None),
        }
    }

    fn validity(&self, claim: &Claim, lease: &Lease) -> Validity {
        let lasts = if lease.is_renewed {
            self.renewed_validity(claim.ttl)
        } else {
            validity_of(claim.ttl)
        };
        Validity { from: lease.from, lasts }
    }

    /// Renews the lease of a waiter.
    pub(super) async fn keep(&self, claim: &Claim, lease: i64) -> Result<Validity, BackendError> {
        let known = self.0.leases.of(&claim.owner).filter(|known| known.id == lease);
        let Some(known) = known else { return Err(self.0.calls.lapsed()) };
        let kept = self.kept_alive(claim, known).await?;
        let kept = kept.ok_or_else(|| self.0.calls.lapsed())?;
        Ok(self.validity(claim, &kept))
    }

    pub(super) async fn ahead(
        &self,
        claim: &Claim,
        names: &Names,
        own: &OwnKey,
    ) -> Result<Ahead, BackendError> {
        let calls = &self.0.calls;
        if claim.mode == Mode::Exclusive {
            // Every key ahead blocks it, so the last one is enough.
            let before = calls.predecessor(&names.queue, own.revision).await?;
            let blocker = before.map(|(key, read_at)| (Awaited::Key(key), read_at));
            return Ok(Ahead { blocker, other_permits: None });
        }
        let (keys, read_at) = calls.before(&names.queue, own.revision).await?;
        let QueueView { position, other_permits } = QueueView::of(claim.mode, keys);
        let awaited = match position {
            Position::Admitted => None,
            Position::Behind(blocker) => Some(Awaited::Key(blocker.key)),
            Position::Crowded => Some(Awaited::AnyOf(names.queue.clone().into_bytes())),
        };
        Ok(Ahead { blocker: awaited.map(|awaited| (awaited, read_at)), other_permits })
    }

    /// Waits for a deletion after this revision, and keeps the claim's lease meanwhile.
    pub(super) async fn until_gone(
        &self,
        claim: &Claim,
        lease: i64,
        awaited: Awaited,
        revision: i64,
    ) -> Result<(), BackendError> {
        let mut gone = std::pin::pin!(self.0.calls.until_deleted(awaited, revision));
        loop {
            tokio::select! {
                gone = &mut gone => return gone,
                () = tokio::time::sleep(claim.ttl / 3) => {
                    self.keep(claim, lease).await?;
                }
            }
        }
    }

    /// Whether the claim's key exists as the claim put it, under this lease.
    pub(super) async fn is_there(&self, names: &Names, lease: i64) -> Result<bool, BackendError> {
        let stored = self.0.looks.send(names.own.clone()).await?;
        Ok(stored
            .is_some_and(|stored| stored.value == names.value.as_bytes() && stored.lease == lease))
    }
}

/// A grant to a claim that asked at this moment.
pub(super) fn granted(own: &OwnKey, asked: Moment, valid: Validity) -> Attempt {
    Attempt::granted(token(own.revision), valid.after(&asked))
}

impl Validity {
    /// How long the lease lasts from this moment on. It may have been proved before that, or after.
    fn after(&self, asked: &Moment) -> Duration {
        let lasts = self.from.since(asked) + self.lasts;
        lasts.saturating_sub(self.from.age_at(asked))
    }
}

pub(super) fn token(revision: i64) -> FencingToken {
    FencingToken::new(revision.unsigned_abs())
}

/// A ttl in seconds, the unit of etcd's leases, rounded up.
pub(super) fn whole_seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(i64::MAX)
}
