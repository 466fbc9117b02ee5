//! Locks in etcd: a queue of keys for each lock, every key under its own lease.
//!
//! | key | what it is |
//! |---|---|
//! | `dlock/<key>/<owner>` | a holder or a waiter, under its lease. The value is `owner client-info`; `- client-info` while a released lock is kept; `~owner client-info` if the hold was revoked |
//! | `dlock/<key>/shared-<owner>` | the same for a reader |
//! | `dlock/<key>/permits-<number>-<owner>` | the same for a permit |
//!
//! The recipe is that of etcd's own `concurrency.Mutex`: the key with the smallest create revision holds the lock, and
//! every other key watches its predecessor. Unlike there, every acquire has a lease to itself, for as long as it needs
//! one. There the key is named after the lease, so two acquires of a lock under one lease would be the same acquire. The
//! fencing token is the create revision.

mod batches;
mod builder;
mod calls;
mod failure;
mod login;
mod names;
mod operators;
mod queue;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::batches::{Entries, Exit, Exits, Looks, When};
pub use self::builder::EtcdBuilder;
use self::calls::{Calls, Kept};
use self::names::{Names, kept_lease, kept_value};
use self::queue::{Ahead, Joined, Place, granted, whole_seconds};
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Mode, Release, Released,
    Renewal, Watch,
};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::stores::shared::batcher::Batcher;
use crate::stores::shared::claim_leases::{Leases, Returned};
use crate::stores::shared::in_flight_limit::Admission;
use crate::stores::shared::tombstones::Tombstones;

/// Locks in an etcd cluster (3.4 or newer).
///
/// Clones share its connections.
#[derive(Clone)]
pub struct Etcd(Arc<Inner>);

struct Inner {
    calls: Arc<Calls>,
    /// Puts of keys.
    entries: Batcher<Entries>,
    /// Deletions of keys. They do not wait for puts.
    exits: Batcher<Exits>,
    /// Reads of keys.
    looks: Batcher<Looks>,
    prefix: String,
    /// How long a deposed leader may go on renewing leases beside its successor.
    stale_leader: Duration,
    min_ttl: Duration,
    leases: Leases,
    tombstones: Tombstones,
}

impl Etcd {
    /// Connects to `etcd://[user:password@]host:port,host:port,…`, or with the feature `etcd-tls` over TLS to
    /// `etcds://…`.
    ///
    /// # Errors
    /// The URL cannot be read, the cluster cannot be reached, or it rejects the credentials. No error shows the
    /// password.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection in progress is closed.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect(url).await
    }

    /// Sets options before connecting.
    pub fn builder() -> EtcdBuilder {
        EtcdBuilder::new()
    }

    /// Uses these credentials from now on, if the servers accept them. This is for passwords that change while the
    /// process runs. Clones use the new credentials, too.
    ///
    /// Holds are not affected: a lock belongs to its lease, whichever user created it.
    ///
    /// # Errors
    /// A permanent error if the servers reject the credentials, and a transient one if they do not answer. The previous
    /// credentials then stay in use. No error shows the password.
    ///
    /// # Cancel safety
    /// If it is dropped, either credentials may be in use.
    pub async fn update_credentials(&self, user: &str, password: &str) -> Result<(), BackendError> {
        self.0.calls.login.update(user, password).await
    }

    fn names(&self, claim: &Claim) -> Names {
        Names::new(&self.0.prefix, claim)
    }

    /// Waits in the queue until the claim is admitted.
    async fn wait(
        &self,
        claim: &Claim,
        names: &Names,
        place: Place,
        asked: Moment,
        room: Admission<'_>,
    ) -> Result<Attempt, BackendError> {
        let Place { own, lease, valid } = place;
        let Ahead { mut blocker, other_permits } = self.ahead(claim, names, &own).await?;
        if blocker.is_none() {
            return Ok(granted(&own, asked, valid).with_other_permits(other_permits));
        }
        drop(room);
        while let Some((awaited, revision)) = blocker {
            self.until_gone(claim, lease, awaited, revision).await?;
            blocker = self.ahead(claim, names, &own).await?.blocker;
        }
        // The wait may have been long: the lease and the key may be gone.
        let valid = self.keep(claim, lease).await?;
        if !self.is_there(names, lease).await? {
            return Err(self.0.calls.lapsed());
        }
        Ok(granted(&own, asked, valid).with_other_permits(other_permits))
    }

    /// Leaves the claim's key in the queue for this long, held by nobody.
    async fn keep_for(
        &self,
        claim: &Claim,
        names: &Names,
        rest: Duration,
    ) -> Result<bool, BackendError> {
        let calls = &self.0.calls;
        // The key keeps its position under a second lease, which lasts for the rest.
        let lease = kept_lease(&claim.owner);
        calls.grant(lease, whole_seconds(rest)).await?;
        let kept = kept_value(&claim.client_info);
        let is_kept = calls.replace_own(&names.own, &names.value, &kept, lease).await?;
        let _ = self.end_lease(&claim.owner).await;
        Ok(is_kept)
    }

    /// Deletes the claim's key. Its lease is kept for another claim if it is known to be empty.
    async fn leave(&self, claim: &Claim, names: &Names) -> Result<bool, BackendError> {
        let (own, value) = (names.own.clone(), names.value.clone());
        let lease = self.0.leases.of(&claim.owner).map(|lease| lease.id);
        let left = self.0.exits.send(Exit { own, value, lease }).await.inspect_err(|_| {
            // It may be executed late. So this claim puts no other key under this lease.
            self.0.leases.doom(&claim.owner);
        });
        if left? {
            // If this fails, the lease expires by itself.
            let _ = self.return_lease(&claim.owner).await;
            return Ok(true);
        }
        let was_revoked = self.0.calls.delete_own(&names.own, &names.revoked_value()).await?;
        let _ = self.end_lease(&claim.owner).await;
        Ok(was_revoked)
    }

    /// Undoes an acquire that may still be executed.
    async fn undo(&self, claim: &Claim, names: &Names) -> Result<bool, BackendError> {
        let Some(lease) = self.0.leases.of(&claim.owner) else {
            // No request of it was sent from here.
            return self.0.calls.delete_own(&names.own, &names.value).await;
        };
        let was_there = self.is_there(names, lease.id).await?;
        // Without its lease, no request in flight can put the key.
        self.end_lease(&claim.owner).await?;
        Ok(was_there)
    }

    /// Takes back the lease of a claim that has no key under it.
    async fn return_lease(&self, owner: &OwnerId) -> Result<(), BackendError> {
        match self.0.leases.take_back(owner) {
            Returned::Not | Returned::Idle => Ok(()),
            Returned::Revoke(_) => self.end_lease(owner).await,
        }
    }

    /// Revokes the claim's lease, with all that is under it.
    async fn end_lease(&self, owner: &OwnerId) -> Result<(), BackendError> {
        if let Some(lease) = self.0.leases.doom(owner) {
            self.0.calls.revoke(lease).await?;
            self.0.leases.forget(owner, lease);
        }
        Ok(())
    }
}

/// An error of a claim whose key is in the queue, and has to be removed.
fn in_queue(error: BackendError) -> BackendError {
    error.maybe_sent()
}

impl AsyncBackend for Etcd {
    fn kind(&self) -> &'static str {
        "etcd"
    }

    fn capabilities(&self) -> Capabilities {
        let able = Capabilities::ETCD;
        able.with_ttl(self.0.min_ttl, able.max_ttl)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        let _room = self.0.calls.room.enter().await;
        let asked = Moment::now();
        let names = self.names(claim);
        // Where others may hold the key too, a claim has to be in the queue to see whether it is admitted.
        let when = if claim.mode == Mode::Exclusive { When::Empty } else { When::Missing };
        let Place { own, valid, .. } = match self.join_queue(claim, &names, when).await? {
            Joined::In(place) => place,
            Joined::Out => {
                // If this fails, the lease expires by itself.
                let _ = self.return_lease(&claim.owner).await;
                return Ok(Attempt::busy(None));
            }
            Joined::Released => return Ok(Attempt::busy(None)),
        };
        let (is_admitted, other_permits) = match claim.mode {
            _ if own.is_first => (true, None),
            Mode::Exclusive => (false, None),
            Mode::Shared | Mode::Permits(_) => {
                let ahead = self.ahead(claim, &names, &own).await.map_err(in_queue)?;
                (ahead.blocker.is_none(), ahead.other_permits)
            }
        };
        if is_admitted {
            return Ok(granted(&own, asked, valid).with_other_permits(other_permits));
        }
        // A try does not wait, so it leaves the queue.
        self.leave(claim, &names).await.map_err(in_queue)?;
        Ok(Attempt::busy(None).with_other_permits(other_permits))
    }

    async fn acquire_queued(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        let room = self.0.calls.room.enter().await;
        let asked = Moment::now();
        let names = self.names(claim);
        let joined = self.join_queue(claim, &names, When::Missing).await?;
        let Joined::In(place) = joined else { return Ok(Attempt::busy(None)) };
        if place.own.is_first {
            return Ok(granted(&place.own, asked, place.valid));
        }
        self.wait(claim, &names, place, asked, room).await.map_err(in_queue)
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let names = self.names(claim);
        let (lease, kept) = match self.0.leases.of(&claim.owner) {
            Some(lease) => (lease.id, self.kept_alive(claim, lease).await?.is_some()),
            // It was acquired over another connection.
            None => match self.0.calls.one(&names.own).await? {
                Some(stored) => {
                    (stored.lease, self.0.calls.keep_alive(stored.lease).await? == Kept::Kept)
                }
                None => (0, false),
            },
        };
        if !kept || !self.is_there(&names, lease).await? {
            return Ok(Renewal::NotHeld);
        }
        Ok(Renewal::Renewed { validity: self.renewed_validity(claim.ttl) })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.0.tombstones.note(claim);
        }
        self.0.leases.release(&claim.owner);
        let _room = self.0.calls.room.enter().await;
        let names = self.names(claim);
        let released = if release.late_acquire {
            self.undo(claim, &names).await?
        } else if let Some(rest) = release.keep_for {
            self.keep_for(claim, &names, rest).await?
        } else {
            self.leave(claim, &names).await?
        };
        Ok(if released { Released::Released } else { Released::NotHeld })
    }

    async fn watch(&self, _: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        Err(BackendError::permanent("etcd queues its waiters itself, so no key can be watched"))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        self.first_holder(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        self.states(prefix).await
    }

    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        self.revoke_holds(key).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        self.delete_holds(key).await
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("hosts", &self.0.calls.hosts)
            .field("prefix", &self.0.prefix)
            .finish_non_exhaustive()
    }
}
