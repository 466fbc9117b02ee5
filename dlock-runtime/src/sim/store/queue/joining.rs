//! How a claim gets its lease and its entry.

use std::time::Duration;

use super::client::QueueClient;
use super::requests::{Entered, Own, When};
use crate::backend::Claim;
use crate::clock::Moment;
use crate::error::BackendError;
use crate::stores::shared::claim_leases::{Lease, Start};

/// A claim's entry, and its lease.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) own: Own,
    pub(super) lease: Lease,
}

/// The outcome of an entry into the queue.
pub(super) enum Joined {
    In(Place),
    /// Others are there, and the claim came only to see.
    Out,
    /// The claim was released.
    Released,
}

impl QueueClient {
    /// Puts the claim's entry into the queue, under a lease. A repeated claim finds the lease and the entry that it has.
    pub(super) async fn join_queue(
        &self,
        claim: &Claim,
        when: When,
    ) -> Result<Joined, BackendError> {
        self.try_to_join(claim, when).await.map_err(|error| {
            // No release follows a request that was not sent.
            let is_undone =
                !error.may_have_been_sent() && self.leases.take_back_unsent(&claim.owner);
            if is_undone { error } else { error.maybe_sent() }
        })
    }

    async fn try_to_join(&self, claim: &Claim, when: When) -> Result<Joined, BackendError> {
        let Some(mut lease) = self.lease(claim).await? else { return Ok(Joined::Released) };
        let mut entered = self.enter(claim, lease.id, when).await?;
        if entered == Some(Entered::NoLease) {
            let Some(another) = self.another_lease(claim, lease.id).await? else {
                return Ok(Joined::Released);
            };
            lease = another;
            entered = self.enter(claim, lease.id, when).await?;
        }
        match entered {
            Some(Entered::In(own)) => Ok(Joined::In(Place { own, lease })),
            Some(Entered::Out) => Ok(Joined::Out),
            Some(Entered::NoLease | Entered::Otherwise) => Err(lapsed()),
            None => Ok(Joined::Released),
        }
    }

    /// Sends the put of the claim's entry. `None` if the claim was released.
    async fn enter(
        &self,
        claim: &Claim,
        lease: i64,
        when: When,
    ) -> Result<Option<Entered>, BackendError> {
        if !self.leases.puts(&claim.owner, lease) {
            return Ok(None);
        }
        let put =
            self.ask("put", claim, move |state, claim, visit| state.put(claim, lease, when, visit));
        let entered = put.await;
        // Without an answer, the entry may still be put at any time.
        if entered.as_ref().is_err_and(BackendError::may_have_been_sent) {
            return entered.map(Some);
        }
        let is_there = matches!(entered, Ok(Entered::In(_) | Entered::Otherwise));
        let is_wanted = self.leases.put(&claim.owner, lease, is_there);
        Ok(Some(entered?).filter(|_| is_wanted))
    }

    /// A lease for the claim that lasts. `None` if the claim was released.
    async fn lease(&self, claim: &Claim) -> Result<Option<Lease>, BackendError> {
        let is_abandoned = || self.tombstones.has(claim);
        match self.leases.begin(&claim.owner, claim.ttl, is_abandoned) {
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
        if self.leases.doom(&claim.owner) != Some(ended) {
            // The claim has another one by now, or none.
            return Ok(None);
        }
        self.revoke_lease(claim, ended).await?;
        match self.leases.replace(&claim.owner, ended) {
            Some(lease) => self.grant(claim, lease).await.map(Some),
            None => Ok(None),
        }
    }

    async fn grant(&self, claim: &Claim, lease: Lease) -> Result<Lease, BackendError> {
        let lease = Lease { from: Moment::now(), ..lease };
        if !self.grant_for(claim, lease.id, lease.ttl).await? {
            return Err(lapsed());
        }
        self.leases.proved(&claim.owner, lease);
        Ok(lease)
    }

    pub(super) async fn grant_for(
        &self,
        claim: &Claim,
        id: i64,
        ttl: Duration,
    ) -> Result<bool, BackendError> {
        self.ask("grant", claim, move |state, _, visit| state.grant(id, ttl, visit)).await
    }

    pub(super) async fn revoke_lease(&self, claim: &Claim, id: i64) -> Result<(), BackendError> {
        self.ask("end lease", claim, move |state, _, visit| state.revoke_lease(id, visit)).await
    }

    /// Keeps a lease alive. `None` if it has ended.
    pub(super) async fn kept_alive(
        &self,
        claim: &Claim,
        lease: Lease,
    ) -> Result<Option<Lease>, BackendError> {
        let lease = Lease { from: Moment::now(), is_renewed: true, ..lease };
        let id = lease.id;
        let keep =
            self.ask("keep alive", claim, move |state, _, visit| state.keep_alive(id, visit));
        if !keep.await? {
            return Ok(None);
        }
        self.leases.proved(&claim.owner, lease);
        Ok(Some(lease))
    }
}

pub(super) fn lapsed() -> BackendError {
    BackendError::transient("the claim's lease in the simulated store has ended")
}
