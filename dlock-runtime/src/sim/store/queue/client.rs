//! A process's client: the recipe of the etcd backend, with the same table of leases.

use std::sync::Arc;
use std::time::Duration;

use super::joining::{Joined, Place, lapsed};
use super::requests::{Ahead, Own, When};
use super::{Queue, State};
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Mode, Release, Released,
    Renewal, Watch, validity_of,
};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::sim::calls::Notices;
use crate::sim::host::Visit;
use crate::sim::store::{Connection, What, digest};
use crate::stores::shared::claim_leases::{Lease, Leases, Returned};
use crate::stores::shared::tombstones::Tombstones;
use crate::timer;
use crate::token::FencingToken;

/// A process's client.
pub(in crate::sim::store) struct QueueClient {
    server: Arc<Queue>,
    connection: Connection,
    pub(super) leases: Leases,
    pub(super) tombstones: Tombstones,
}

impl QueueClient {
    pub(in crate::sim::store) fn new(server: Arc<Queue>) -> Self {
        let connection = Connection { host: server.host };
        Self { server, connection, leases: Leases::default(), tombstones: Tombstones::default() }
    }

    pub(super) async fn ask<R: std::fmt::Debug + Send + 'static>(
        &self,
        name: &'static str,
        claim: &Claim,
        act: impl Fn(&mut State, &Claim, &mut Visit) -> R + Send + Sync + 'static,
    ) -> Result<R, BackendError> {
        let what = What { name, digest: digest(claim), may_repeat: false };
        let claim = claim.clone();
        let act = move |state: &mut State, visit: &mut Visit| act(state, &claim, visit);
        let answer = self.connection.ask(what, &self.server.state, act).await;
        answer.map(|answer| answer.value)
    }

    /// A request about a key, for operators.
    async fn ask_about<R: std::fmt::Debug + Send + 'static>(
        &self,
        name: &'static str,
        act: impl Fn(&mut State, &mut Visit) -> R + Send + Sync + 'static,
    ) -> Result<R, BackendError> {
        let what = What { name, digest: 0, may_repeat: false };
        let answer = self.connection.ask(what, &self.server.state, act).await;
        answer.map(|answer| answer.value)
    }

    /// Renews the lease of a waiter.
    async fn keep(&self, claim: &Claim, lease: i64) -> Result<Lease, BackendError> {
        let known = self.leases.of(&claim.owner).filter(|known| known.id == lease);
        let known = known.ok_or_else(lapsed)?;
        self.kept_alive(claim, known).await?.ok_or_else(lapsed)
    }

    /// Waits in the queue until the claim is admitted.
    async fn wait(
        &self,
        claim: &Claim,
        place: Place,
        asked: Moment,
    ) -> Result<Attempt, BackendError> {
        let Place { own, lease } = place;
        let notices = Notices::new();
        let mut ahead = self.ahead(claim, own, Some(&notices)).await?;
        let other_permits = ahead.other_permits;
        if ahead.is_admitted {
            return Ok(granted(claim, place, asked).with_other_permits(other_permits));
        }
        while !ahead.is_admitted {
            // A notice may be lost. The lease has to be kept anyway, and the watch is renewed with it.
            if !within(claim.ttl / 3, notices.next()).await {
                self.keep(claim, lease.id).await?;
            }
            ahead = self.ahead(claim, own, Some(&notices)).await?;
        }
        // The wait may have been long: the lease and the entry may be gone.
        let lease = self.keep(claim, lease.id).await?;
        if !self.is_there(claim, lease.id).await? {
            return Err(lapsed());
        }
        let place = Place { own, lease };
        Ok(granted(claim, place, asked).with_other_permits(other_permits))
    }

    async fn ahead(
        &self,
        claim: &Claim,
        own: Own,
        notices: Option<&Notices>,
    ) -> Result<Ahead, BackendError> {
        let watch = notices.map(Notices::id);
        let look = self.ask("look", claim, move |state, claim, visit| {
            state.look_ahead(claim, own.revision, watch, visit)
        });
        look.await
    }

    async fn is_there(&self, claim: &Claim, lease: i64) -> Result<bool, BackendError> {
        let check = self
            .ask("check", claim, move |state, claim, visit| state.is_there(claim, lease, visit));
        check.await
    }

    /// Leaves the claim's entry in the queue for this long, held by nobody.
    async fn keep_for(&self, claim: &Claim, rest: Duration) -> Result<bool, BackendError> {
        // The same for a repeated release.
        let lease = kept_lease(&claim.owner);
        self.grant_for(claim, lease, rest).await?;
        let keep =
            self.ask("keep", claim, move |state, claim, visit| state.keep_for(claim, lease, visit));
        let is_kept = keep.await?;
        let _ = self.end_lease(claim).await;
        Ok(is_kept)
    }

    /// Deletes the claim's entry. Its lease is kept for another claim if it is known to be empty.
    async fn leave(&self, claim: &Claim) -> Result<bool, BackendError> {
        let lease = self.leases.of(&claim.owner).map(|lease| lease.id);
        let left = self.delete(claim, lease).await.inspect_err(|_| {
            // It may be executed late. So this claim puts no other entry under this lease.
            self.leases.doom(&claim.owner);
        });
        if left? {
            // If this fails, the lease expires by itself.
            let _ = self.return_lease(claim).await;
            return Ok(true);
        }
        let was_revoked = self.ask("leave revoked", claim, State::leave_revoked).await?;
        let _ = self.end_lease(claim).await;
        Ok(was_revoked)
    }

    async fn delete(&self, claim: &Claim, lease: Option<i64>) -> Result<bool, BackendError> {
        self.ask("leave", claim, move |state, claim, visit| state.leave(claim, lease, visit)).await
    }

    /// Undoes an acquire that may still be executed.
    async fn undo(&self, claim: &Claim) -> Result<bool, BackendError> {
        let Some(lease) = self.leases.of(&claim.owner) else {
            // No request of it was sent from here.
            return self.delete(claim, None).await;
        };
        let was_there = self.is_there(claim, lease.id).await?;
        // Without its lease, no request in flight can put the entry.
        self.end_lease(claim).await?;
        Ok(was_there)
    }

    /// Takes back the lease of a claim that has no entry under it.
    async fn return_lease(&self, claim: &Claim) -> Result<(), BackendError> {
        match self.leases.take_back(&claim.owner) {
            Returned::Not | Returned::Idle => Ok(()),
            Returned::Revoke(_) => self.end_lease(claim).await,
        }
    }

    /// Revokes the claim's lease, with all that is under it.
    async fn end_lease(&self, claim: &Claim) -> Result<(), BackendError> {
        if let Some(lease) = self.leases.doom(&claim.owner) {
            self.revoke_lease(claim, lease).await?;
            self.leases.forget(&claim.owner, lease);
        }
        Ok(())
    }
}

/// A grant to a claim that asked at this moment. The lease may have been proved before that, or after.
fn granted(claim: &Claim, place: Place, asked: Moment) -> Attempt {
    let Place { own, lease } = place;
    let lasts = lease.from.since(&asked) + validity_of(claim.ttl);
    let lasts = lasts.saturating_sub(lease.from.age_at(&asked));
    Attempt::granted(FencingToken::new(own.revision), lasts)
}

/// The id of the lease for the rest of a `min_hold`: a repeated release finds it.
fn kept_lease(owner: &OwnerId) -> i64 {
    let bits = u128::from_be_bytes(*owner.as_bytes());
    i64::try_from((bits & u128::from(u64::MAX)) >> 1).unwrap_or(1).max(1)
}

/// An error of a claim whose entry is in the queue, and has to be removed.
fn in_queue(error: BackendError) -> BackendError {
    error.maybe_sent()
}

/// Whether something happened within this time.
async fn within(limit: Duration, happens: impl Future<Output = ()>) -> bool {
    timer::timeout(limit, happens).await.is_ok()
}

impl AsyncBackend for QueueClient {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LEASES.with_every_kind().with_push(false).with_queue(true)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        let asked = Moment::now();
        // Where others may hold the key too, a claim has to be in the queue to see whether it is admitted.
        let when = if claim.mode == Mode::Exclusive { When::Empty } else { When::Missing };
        let place = match self.join_queue(claim, when).await? {
            Joined::In(place) => place,
            Joined::Out => {
                // If this fails, the lease expires by itself.
                let _ = self.return_lease(claim).await;
                return Ok(Attempt::busy(None));
            }
            Joined::Released => return Ok(Attempt::busy(None)),
        };
        let (is_admitted, other_permits) = match claim.mode {
            _ if place.own.is_first => (true, None),
            Mode::Exclusive => (false, None),
            Mode::Shared | Mode::Permits(_) => {
                let ahead = self.ahead(claim, place.own, None).await.map_err(in_queue)?;
                (ahead.is_admitted, ahead.other_permits)
            }
        };
        if is_admitted {
            return Ok(granted(claim, place, asked).with_other_permits(other_permits));
        }
        // A try does not wait, so it leaves the queue.
        self.leave(claim).await.map_err(in_queue)?;
        Ok(Attempt::busy(None).with_other_permits(other_permits))
    }

    async fn acquire_queued(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        let asked = Moment::now();
        let joined = self.join_queue(claim, When::Missing).await?;
        let Joined::In(place) = joined else { return Ok(Attempt::busy(None)) };
        if place.own.is_first {
            return Ok(granted(claim, place, asked));
        }
        self.wait(claim, place, asked).await.map_err(in_queue)
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let (lease, kept) = if let Some(lease) = self.leases.of(&claim.owner) {
            (lease.id, self.kept_alive(claim, lease).await?.is_some())
        } else {
            let find = self.ask("find", claim, |state, claim, visit| {
                let lease = state.lease_of(&claim.key, claim.owner, visit);
                lease.filter(|lease| state.keep_alive(*lease, visit))
            });
            let lease = find.await?;
            (lease.unwrap_or(0), lease.is_some())
        };
        if !kept || !self.is_there(claim, lease).await? {
            return Ok(Renewal::NotHeld);
        }
        Ok(Renewal::Renewed { validity: validity_of(claim.ttl) })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.tombstones.note(claim);
        }
        self.leases.release(&claim.owner);
        let released = if release.late_acquire {
            self.undo(claim).await?
        } else if let Some(rest) = release.keep_for {
            self.keep_for(claim, rest).await?
        } else {
            self.leave(claim).await?
        };
        Ok(if released { Released::Released } else { Released::NotHeld })
    }

    async fn watch(&self, _: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        Err(BackendError::permanent("this store queues its waiters itself"))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let key = key.clone();
        self.ask_about("inspect", move |state, visit| state.inspect(&key, visit)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let prefix = prefix.to_owned();
        self.ask_about("list", move |state, visit| state.list(&prefix, visit)).await
    }

    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        let key = key.clone();
        self.ask_about("revoke", move |state, visit| state.revoke(&key, visit)).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let key = key.clone();
        self.ask_about("force-release", move |state, visit| state.force_release(&key, visit)).await
    }
}
