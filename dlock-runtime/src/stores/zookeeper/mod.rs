//! Locks in ZooKeeper: a queue of ephemeral nodes for each key, together with Curator's clients.
//!
//! | node | what it is |
//! |---|---|
//! | `/dlock/<key>` | the queue of a key: a container, which the server removes when it is empty |
//! | `/dlock/<key>/_c_<uuid>-lock-<sequence>` | one who holds the lock or waits for it: ephemeral and sequential |
//!
//! The recipe is that of ZooKeeper's documentation ([*Recipes: Locks*]), with the names of Curator's
//! `InterProcessMutex`, so that a Java service and a Rust service exclude each other on one path: who stands
//! first holds, everybody else watches the one right before it. The fencing token is the transaction by
//! which the node was created (`czxid`): who stands later has the larger one.
//!
//! A node lasts as long as the process's session. How long that surely is, is judged by our own clock: see
//! the module `proofs`.
//!
//! [*Recipes: Locks*]: https://zookeeper.apache.org/doc/current/recipes.html#sc_recipes_Locks

mod builder;
mod checks;
mod claims;
mod operators;
mod proofs;
mod queue;
mod reconnecting;
mod session;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zookeeper_client::{Acls, Error};

pub use self::builder::ZooKeeperBuilder;
use self::claims::{Known, OwnNode};
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
use crate::lock_table::queue::{Position, position};
use crate::owner::OwnerId;
use crate::stores::shared::room::Room;
use crate::stores::shared::tombstones::Tombstones;

/// Two session timeouts and an election, taken to be as long as one: after a crash a lock is free.
const TIMEOUTS: u32 = 3;

/// How often a node is tried for whose folder is removed at the same moment.
const TRIES: usize = 5;

/// Locks in a ZooKeeper ensemble (3.5 or newer).
///
/// All locks of a backend share one session. Clones share it.
#[derive(Clone)]
pub struct ZooKeeper(Arc<Inner>);

struct Inner {
    ensemble: Ensemble,
    /// Chroot and folder: what every path begins with.
    root: String,
    acls: Acls<'static>,
    /// What the server has granted, which may be more than was asked for.
    timeout: Duration,
    session: Mutex<Option<Arc<Session>>>,
    reconnecting: Reconnecting,
    /// Of acquires and releases.
    room: Room,
    claims: Mutex<HashMap<OwnerId, Known>>,
    tombstones: Tombstones,
}

impl ZooKeeper {
    /// Connects to `zookeeper://[user:password@]host:port,host:port,…[/chroot]`.
    ///
    /// With credentials (digest authentication) only they can use the nodes, without everybody. The option
    /// `?session_timeout_ms=n` is [`ZooKeeperBuilder::session_timeout`].
    ///
    /// # Errors
    /// A URL that cannot be read, an ensemble that cannot be reached within five seconds or refuses the
    /// credentials. No error shows the password.
    ///
    /// # Cancel safety
    /// Cancel safe: a session under way is closed.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect(url).await
    }

    /// Options before connecting.
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

    /// Where this place stands now, behind the node of which path, and another number of permits by which
    /// somebody before it counts; `None` if it has been removed.
    async fn position(
        &self,
        claim: &Claim,
        place: &OwnNode,
    ) -> Result<Option<(Position<String>, Option<NonZeroU32>)>, BackendError> {
        let session = &place.session;
        let names = session.read(Moment::now(), session.client.list_children(&place.folder)).await;
        let entries = match names {
            Ok(names) => queue::entries(names),
            Err(Error::NoNode) => vec![],
            Err(error) => return Err(self.failed(&error)),
        };
        if entries.iter().all(|entry| entry.sequence != place.sequence) {
            return Ok(None);
        }
        let mut ahead = queue::before(entries, place.sequence);
        // Nobody waits for a node of its own, should there be another one.
        let own = queue::identity(&claim.owner);
        ahead.retain(|entry| !entry.name.starts_with(&own));
        let other_permits = claim.mode.other_permits(ahead.iter().map(|entry| entry.mode));
        let path = |entry: QueueNode| (format!("{}/{}", place.folder, entry.name), entry.mode);
        let position = position(claim.mode, ahead.into_iter().map(path).collect());
        Ok(Some((position, other_permits)))
    }

    /// The lock is this place's: for how long is surely known?
    async fn grant(
        &self,
        claim: &Claim,
        place: &OwnNode,
        began: Moment,
    ) -> Result<Attempt, BackendError> {
        // After a wait the session has to be proved anew.
        let session = &place.session;
        if session.remaining() < session.timeout / 3 && !self.is_there(place).await? {
            return Err(self.removed(claim, place));
        }
        Ok(Attempt::granted(place.token, place.lasts_from(began)))
    }

    /// Waits until this node is gone.
    async fn until_gone(&self, session: &Session, path: &str) -> Result<(), BackendError> {
        // It has no children and will have none: what it tells is that it is gone, and not that its
        // holder has written to it.
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

    /// Waits until somebody comes or goes, if nobody has gone already.
    async fn until_one_less(&self, claim: &Claim, place: &OwnNode) -> Result<(), BackendError> {
        let session = &place.session;
        let watched = session.client.list_and_watch_children(&place.folder);
        let (names, changed) = match session.read(Moment::now(), watched).await {
            Err(Error::NoNode) => return Ok(()),
            answer => answer.map_err(|error| self.failed(&error))?,
        };
        let ahead = queue::before(queue::entries(names), place.sequence).into_iter();
        let ahead = ahead.map(|entry| (entry.sequence, entry.mode)).collect();
        if position(claim.mode, ahead) != Position::Crowded {
            return Ok(());
        }
        tokio::select! {
            _ = changed.changed() => Ok(()),
            () = session.disconnected() => Err(self.failed(&Error::ConnectionLoss)),
        }
    }

    /// Is this node there? The answer proves the session as well.
    async fn is_there(&self, place: &OwnNode) -> Result<bool, BackendError> {
        place.session.has_node(&place.path).await.map_err(|error| self.failed(&error))
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
        let _room = self.0.room.enter().await;
        let began = Moment::now();
        let place = self.line_up(claim).await?;
        match self.position(claim, &place).await? {
            Some((Position::Admitted, other_permits)) => {
                let granted = self.grant(claim, &place, began).await?;
                Ok(granted.with_other_permits(other_permits))
            }
            None => Err(self.removed(claim, &place)),
            Some((Position::Behind(_) | Position::Crowded, other_permits)) => {
                // A try does not wait: it leaves the queue.
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
            let room = self.0.room.enter().await;
            let place = self.line_up(claim).await?;
            match self.position(claim, &place).await? {
                Some((Position::Admitted, other_permits)) => {
                    let granted = self.grant(claim, &place, began).await?;
                    return Ok(granted.with_other_permits(other_permits));
                }
                None => return Err(self.removed(claim, &place)),
                Some((Position::Behind(before), _)) => {
                    drop(room);
                    self.until_gone(&place.session, &before).await?;
                }
                Some((Position::Crowded, _)) => {
                    drop(room);
                    self.until_one_less(claim, &place).await?;
                }
            }
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let Some(place) = self.place(&claim.owner) else { return Ok(Renewal::NotHeld) };
        let began = Moment::now();
        if !self.is_there(&place).await? {
            return Ok(Renewal::NotHeld);
        }
        Ok(Renewal::Renewed { validity: place.lasts_from(began) })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.0.tombstones.note(claim);
        }
        let _room = self.0.room.enter().await;
        // Whether a creation may still be under way is known here.
        self.remove(claim).await
    }

    async fn watch(&self, _: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        Err(BackendError::permanent(
            "zookeeper has a queue of its own: its waiters take their turn",
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
            .field("root", &self.0.root)
            .finish_non_exhaustive()
    }
}
