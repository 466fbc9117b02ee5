//! Locks in ZooKeeper: a queue of ephemeral nodes for each key, shared with Curator's clients.
//!
//! | node | what it is |
//! |---|---|
//! | `/dlock/<key>` | the queue of a key: a container, which the server removes when it is empty |
//! | `/dlock/<key>/_c_<uuid>-lock-<sequence>` | a holder or a waiter: ephemeral and sequential |
//! | `/dlock/<key>/_c_<uuid>-shared-lock-<sequence>` | the same for a reader |
//! | `/dlock/<key>/_c_<uuid>-permits-<number>-lock-<sequence>` | the same for a permit |
//!
//! The recipe is that of ZooKeeper's documentation ([*Recipes: Locks*]), with the names of Curator's
//! `InterProcessMutex`, so that a Java service and a Rust service exclude each other on one path. The first node holds
//! the lock, and every other node watches the last one before it that blocks it. The fencing token is the transaction that
//! created the node (`czxid`): a node that is later in the queue has a larger one.
//!
//! A node lasts as long as the session of its process. This process's own clock decides how long that provably is: see
//! `stores/shared/proofs.rs`.
//!
//! [*Recipes: Locks*]: https://zookeeper.apache.org/doc/current/recipes.html#sc_recipes_Locks

mod batches;
mod builder;
mod checks;
mod claims;
mod folders;
mod operators;
mod queue;
mod reconnecting;
mod session;
mod singles;
mod transaction;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zookeeper_client::Error;

pub use self::builder::ZooKeeperBuilder;
use self::claims::{Joined, Known, OwnNode};
use self::queue::QueueNode;
use self::reconnecting::Reconnecting;
use self::session::{Ensemble, Session};
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Release, Released, Renewal,
    Watch,
};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::queue::Position;
use crate::owner::OwnerId;
use crate::stores::shared::in_flight_limit::InFlightLimit;
use crate::stores::shared::node_queue::QueueView;
use crate::stores::shared::tombstones::Tombstones;

/// The session timeouts after which a crashed holder's lock is free: two, and one more for an election.
const TIMEOUTS: u32 = 3;

/// Locks in a ZooKeeper ensemble (3.5 or newer).
///
/// All locks of a backend share one session. Clones share it, too.
#[derive(Clone)]
pub struct ZooKeeper(Arc<Inner>);

struct Inner {
    ensemble: Ensemble,
    /// The session timeout that the server granted. It may be longer than the requested one.
    timeout: Duration,
    session: Mutex<Option<Arc<Session>>>,
    reconnecting: Reconnecting,
    /// For reads of a queue, except those that belong to a create.
    room: InFlightLimit,
    claims: Mutex<HashMap<OwnerId, Known>>,
    tombstones: Tombstones,
}

impl ZooKeeper {
    /// Connects to `zookeeper://[user:password@]host:port,host:port,…[/chroot]`.
    ///
    /// With credentials (digest authentication), only they can access the nodes. Without credentials, everybody can. The
    /// option `?session_timeout_ms=n` is [`ZooKeeperBuilder::session_timeout`].
    ///
    /// # Errors
    /// The URL cannot be read, the ensemble cannot be reached within five seconds, or it rejects the credentials. No
    /// error shows the password.
    ///
    /// # Cancel safety
    /// Cancel safe: a session in progress is closed.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect(url).await
    }

    /// Sets options before connecting.
    pub fn builder() -> ZooKeeperBuilder {
        ZooKeeperBuilder::new()
    }

    fn living(&self) -> Option<Arc<Session>> {
        self.current().clone().filter(|session| session.lives())
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<OwnerId, Known>> {
        self.0.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &Error) -> BackendError {
        self.0.ensemble.explain("failed", error)
    }

    /// Joins the queue, unless the claim is in it already. Returns its node and what it finds ahead of it.
    async fn stand_in_queue(
        &self,
        claim: &Claim,
    ) -> Result<(Arc<OwnNode>, QueueView<QueueNode>), BackendError> {
        let Joined { node: own, names } = self.join_queue(claim).await?;
        let names = match names {
            Some(names) => names,
            None => self.names(&own).await?,
        };
        let nodes = queue::nodes(names);
        if nodes.iter().all(|node| node.sequence != own.sequence) {
            return Err(self.removed(claim, &own));
        }
        let view = queue::view(claim, own.sequence, nodes);
        Ok((own, view))
    }

    /// The names in the folder of this node.
    async fn names(&self, own: &OwnNode) -> Result<Vec<String>, BackendError> {
        let _room = self.0.room.enter().await;
        let session = &own.session;
        match session.read(Moment::now(), session.client.list_children(own.folder())).await {
            Ok(names) => Ok(names),
            Err(Error::NoNode) => Ok(vec![]),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Grants the lock to this node, for as long as the session is proved.
    async fn grant(
        &self,
        claim: &Claim,
        own: &OwnNode,
        began: Moment,
    ) -> Result<Attempt, BackendError> {
        // After a wait the session needs a new proof.
        let session = &own.session;
        if session.remaining() < session.timeout / 3 && !self.is_there(own).await? {
            return Err(self.removed(claim, own));
        }
        Ok(Attempt::granted(own.token, own.lasts_from(began)))
    }

    /// Waits until this node is gone.
    async fn until_gone(&self, session: &Session, path: &str) -> Result<(), BackendError> {
        // The node never has children, so this watch fires when the node is gone, and not when its data changes.
        let watched = session.client.list_and_watch_children(path);
        match session.read(Moment::now(), watched).await {
            Err(Error::NoNode) => Ok(()),
            Err(error) => Err(self.failed(&error)),
            Ok((_, gone)) => tokio::select! {
                _ = gone.changed() => Ok(()),
                () = session.disconnected() => Err(self.failed(&Error::ConnectionLoss)),
            },
        }
    }

    /// Waits until the folder changes, unless a permit is free already.
    async fn until_a_holder_leaves(
        &self,
        claim: &Claim,
        own: &OwnNode,
    ) -> Result<(), BackendError> {
        let session = &own.session;
        let watched = session.client.list_and_watch_children(own.folder());
        let (names, changed) = match session.read(Moment::now(), watched).await {
            Err(Error::NoNode) => return Ok(()),
            answer => answer.map_err(|error| self.failed(&error))?,
        };
        if queue::view(claim, own.sequence, queue::nodes(names)).position != Position::Crowded {
            return Ok(());
        }
        tokio::select! {
            _ = changed.changed() => Ok(()),
            () = session.disconnected() => Err(self.failed(&Error::ConnectionLoss)),
        }
    }

    /// Whether this node exists. The answer proves the session, too.
    async fn is_there(&self, own: &OwnNode) -> Result<bool, BackendError> {
        own.session.has_node(&own.path).await.map_err(|error| self.failed(&error))
    }
}

impl AsyncBackend for ZooKeeper {
    fn kind(&self) -> &'static str {
        "zookeeper"
    }

    fn capabilities(&self) -> Capabilities {
        let able = Capabilities::ZOOKEEPER;
        able.with_ttl(self.0.timeout * TIMEOUTS, able.max_ttl)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let began = Moment::now();
        let (own, QueueView { position, other_permits }) = self.stand_in_queue(claim).await?;
        match position {
            Position::Admitted => {
                let granted = self.grant(claim, &own, began).await?;
                Ok(granted.with_other_permits(other_permits))
            }
            Position::Behind(_) | Position::Crowded => {
                // A try does not wait, so it leaves the queue.
                self.remove(claim).await?;
                Ok(Attempt::busy(None).with_other_permits(other_permits))
            }
        }
    }

    async fn acquire_queued(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let began = Moment::now();
        loop {
            let (own, QueueView { position, other_permits }) = self.stand_in_queue(claim).await?;
            match position {
                Position::Admitted => {
                    let granted = self.grant(claim, &own, began).await?;
                    return Ok(granted.with_other_permits(other_permits));
                }
                Position::Behind(blocker) => {
                    let path = format!("{}/{}", own.folder(), blocker.name);
                    self.until_gone(&own.session, &path).await?;
                }
                Position::Crowded => {
                    self.until_a_holder_leaves(claim, &own).await?;
                }
            }
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let Some(own) = self.own_node(&claim.owner) else { return Ok(Renewal::NotHeld) };
        let began = Moment::now();
        if !self.is_there(&own).await? {
            return Ok(Renewal::NotHeld);
        }
        Ok(Renewal::Renewed { validity: own.lasts_from(began) })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.0.tombstones.note(claim);
        }
        // Whether a create may still be in flight is known from `claims`, not from `late_acquire`.
        self.remove(claim).await
    }

    async fn watch(&self, _: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        Err(BackendError::permanent(
            "zookeeper queues its waiters itself, so no key can be watched",
        ))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        self.holder_of(key).await
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

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper")
            .field("hosts", &self.0.ensemble.hosts)
            .field("root", &self.0.ensemble.root)
            .finish_non_exhaustive()
    }
}
