//! Locks in etcd: a queue of keys for each lock, every key under its own lease.
//!
//! | key | what it is |
//! |---|---|
//! | `dlock/<key>/<owner>` | a holder or a waiter, under its lease. The value is `owner client-info`; `- client-info` while a released lock is kept; `~owner client-info` if the hold was revoked |
//! | `dlock/<key>/shared-<owner>` | the same for a reader |
//! | `dlock/<key>/permits-<number>-<owner>` | the same for a permit |
//!
//! The recipe is that of etcd's own `concurrency.Mutex`: the key with the smallest create revision holds the lock, and
//! every other key watches its predecessor. Unlike there, every acquire has its own lease. There the key is named after
//! the lease, so two acquires of a lock under one lease would be the same acquire. The id of the lease is derived from
//! the owner, so that a grant whose answer was lost is found again. The fencing token is the create revision.

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

pub use self::builder::EtcdBuilder;
use self::calls::{Calls, Kept};
use self::names::{Names, kept_value, lease_ids};
use self::queue::{granted, whole_seconds};
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Mode, Release, Released,
    Renewal, Watch,
};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::shared::tombstones::Tombstones;

/// Locks in an etcd cluster (3.4 or newer).
///
/// Clones share its connections.
#[derive(Clone)]
pub struct Etcd(Arc<Inner>);

struct Inner {
    calls: Calls,
    prefix: String,
    /// How long a deposed leader may go on renewing leases beside its successor.
    stale_leader: Duration,
    min_ttl: Duration,
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

    /// Leaves the claim's key in the queue for this long, held by nobody.
    async fn keep_for(
        &self,
        claim: &Claim,
        names: &Names,
        rest: Duration,
    ) -> Result<bool, BackendError> {
        let calls = &self.0.calls;
        // The key keeps its position under a second lease, which lasts for the rest.
        let [_, lease] = lease_ids(&claim.owner);
        calls.grant(lease, whole_seconds(rest)).await?;
        let kept = kept_value(&claim.client_info);
        calls.replace_own(&names.own, &names.value, &kept, lease).await
    }
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
        if self.0.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let _room = self.0.calls.room.enter().await;
        let asked = Moment::now();
        let names = self.names(claim);
        let (own, valid) = self.join_queue(claim, &names).await?;
        let (is_admitted, other_permits) = match claim.mode {
            _ if own.is_first => (true, None),
            Mode::Exclusive => (false, None),
            Mode::Shared | Mode::Permits(_) => {
                let ahead = self.ahead(claim, &names, &own).await?;
                (ahead.blocker.is_none(), ahead.other_permits)
            }
        };
        if is_admitted {
            return Ok(granted(&own, asked, valid).with_other_permits(other_permits));
        }
        // A try does not wait, so it leaves the queue.
        self.0.calls.revoke(names.lease).await?;
        Ok(Attempt::busy(None).with_other_permits(other_permits))
    }

    async fn acquire_queued(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let room = self.0.calls.room.enter().await;
        let asked = Moment::now();
        let names = self.names(claim);
        let (own, valid) = self.join_queue(claim, &names).await?;
        if own.is_first {
            return Ok(granted(&own, asked, valid));
        }
        let ahead = self.ahead(claim, &names, &own).await?;
        let (mut blocker, other_permits) = (ahead.blocker, ahead.other_permits);
        if blocker.is_none() {
            return Ok(granted(&own, asked, valid).with_other_permits(other_permits));
        }
        drop(room);
        while let Some((awaited, revision)) = blocker {
            self.until_gone(claim, &names, awaited, revision).await?;
            blocker = self.ahead(claim, &names, &own).await?.blocker;
        }
        // The wait may have been long: the lease and the key may be gone.
        let valid = self.keep(claim, &names).await?;
        if !self.is_there(&names).await? {
            return Err(self.0.calls.lapsed());
        }
        Ok(granted(&own, asked, valid).with_other_permits(other_permits))
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let names = self.names(claim);
        let kept = self.0.calls.keep_alive(names.lease).await?;
        if kept == Kept::Gone || !self.is_there(&names).await? {
            return Ok(Renewal::NotHeld);
        }
        Ok(Renewal::Renewed { validity: self.renewed_validity(claim.ttl) })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.0.tombstones.note(claim);
        }
        let calls = &self.0.calls;
        let _room = calls.room.enter().await;
        let names = self.names(claim);
        let released = if release.late_acquire {
            // Without its lease, no request in flight can put the key.
            let was_there = self.is_there(&names).await?;
            calls.revoke(names.lease).await?;
            was_there
        } else {
            let released = match release.keep_for {
                Some(rest) => self.keep_for(claim, &names, rest).await?,
                None => {
                    calls.delete_own(&names.own, &names.value).await?
                        || calls.delete_own(&names.own, &names.revoked_value()).await?
                }
            };
            // If this fails, the lease expires by itself. The only key that may still be under it is that of
            // a revoked hold.
            let _ = calls.revoke(names.lease).await;
            released
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
