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
mod proofs;
mod queue;
mod session;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zookeeper_client::{Acls, CreateMode, Error, MultiWriteResult};

pub use self::builder::ZooKeeperBuilder;
use self::queue::Entry;
use self::session::{Ensemble, Session};
use super::by_async_methods::backend_by_async_methods;
use super::given_up::GivenUp;
use super::standing::{Standing, holders, standing};
use super::{
    Attempt, Capabilities, Claim, Holder, LockState, MOST_LISTED, Release, Released, Renewal,
    Waiter,
};
use crate::claimant::Claimant;
use crate::clock::Moment;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// Two session timeouts and an election, taken to be as long as one: after a crash a lock is free.
const TIMEOUTS: u32 = 3;

/// What stands before the data of a node whose hold was revoked.
const REVOKED: char = '~';

/// What Curator's `Revoker` writes into such a node.
const CURATORS_REVOKED: &str = "__REVOKE__";

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
    connecting: tokio::sync::Mutex<()>,
    places: Mutex<HashMap<OwnerId, Arc<Place>>>,
    given_up: GivenUp,
}

/// A node in a queue.
struct Place {
    session: Arc<Session>,
    folder: String,
    path: String,
    sequence: i32,
    token: FencingToken,
}

impl Place {
    /// How long it surely lasts, counted from this moment.
    fn lasts_from(&self, began: Moment) -> Duration {
        Moment::now().since(&began) + self.session.remaining()
    }
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

    fn capabilities(&self) -> Capabilities {
        let able = Capabilities::ZOOKEEPER;
        able.with_ttl(self.0.timeout * TIMEOUTS, able.max_ttl)
    }

    /// The session there is, or a new one.
    async fn session(&self) -> Result<Arc<Session>, BackendError> {
        if let Some(session) = self.living() {
            return Ok(session);
        }
        let _alone = self.0.connecting.lock().await;
        if let Some(session) = self.living() {
            return Ok(session);
        }
        let session = self.0.ensemble.connect().await?;
        // Those of the session that has ended have gone with it.
        self.places().retain(|_, place| place.session.lives());
        *self.current() = Some(Arc::clone(&session));
        Ok(session)
    }

    fn living(&self) -> Option<Arc<Session>> {
        self.current().clone().filter(|session| session.lives())
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<OwnerId, Arc<Place>>> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &Error) -> BackendError {
        self.0.ensemble.explain("failed", error)
    }

    /// The claim's place in its queue, a new one if it has none.
    async fn line_up(&self, claim: &Claim) -> Result<Arc<Place>, BackendError> {
        let known = self.places().get(&claim.owner).cloned();
        if let Some(place) = known.filter(|place| place.session.lives()) {
            return Ok(place);
        }
        let session = self.session().await?;
        let folder = queue::folder(&self.0.root, &claim.key);
        let prefix = format!("{folder}/{}", queue::prefix(&claim.owner, claim.sharing));
        let place = match self.create(&session, &folder, &prefix, claim).await {
            Ok(place) => place,
            // Whether it was created is not known: look when there is a connection again.
            Err(Error::ConnectionLoss | Error::Timeout) => {
                let found = self.find(&session, &folder, &claim.owner).await?;
                let Some((entry, token)) = found else {
                    return Err(self.failed(&Error::ConnectionLoss));
                };
                let path = format!("{folder}/{}", entry.name);
                Place { session, folder, path, sequence: entry.sequence, token }
            }
            Err(error) => return Err(self.failed(&error)),
        };
        let place = Arc::new(place);
        self.places().insert(claim.owner, Arc::clone(&place));
        Ok(place)
    }

    async fn create(
        &self,
        session: &Arc<Session>,
        folder: &str,
        prefix: &str,
        claim: &Claim,
    ) -> Result<Place, Error> {
        let data = claim.claimant.to_text();
        let client = &session.client;
        let place = |path: String, sequence: i32, czxid: i64| Place {
            session: Arc::clone(session),
            folder: folder.to_owned(),
            path,
            sequence,
            token: FencingToken::new(czxid.unsigned_abs()),
        };
        for _ in 0..TRIES {
            let options = CreateMode::EphemeralSequential.with_acls(self.0.acls);
            let sent = Moment::now();
            let created =
                session.write(sent, client.create(prefix, data.as_bytes(), &options)).await;
            match created {
                Ok((stat, sequence)) => {
                    // The server's counter has 32 bits.
                    let sequence =
                        i32::try_from(sequence.into_i64()).map_err(|_| Error::Unimplemented)?;
                    return Ok(place(format!("{prefix}{sequence:010}"), sequence, stat.czxid));
                }
                Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            }
            // The first use of this key, or the first for a while.
            if let Some(path) = self.create_with_folder(session, folder, prefix, &data).await?
                && let Some(entry) = queue::entry(path.clone())
                && let Some(stat) = client.check_stat(&path).await?
            {
                return Ok(place(path, entry.sequence, stat.czxid));
            }
        }
        Err(Error::NoNode)
    }

    /// Creates the folder and the node in it, both or none: a folder in which there never was a node is
    /// not removed by the server. Nothing if somebody else was faster.
    async fn create_with_folder(
        &self,
        session: &Session,
        folder: &str,
        prefix: &str,
        data: &str,
    ) -> Result<Option<String>, Error> {
        let client = &session.client;
        let container = CreateMode::Container.with_acls(self.0.acls);
        let mut both = client.new_multi_writer();
        both.add_create(folder, &[], &container)?;
        let node = CreateMode::EphemeralSequential.with_acls(self.0.acls);
        both.add_create(prefix, data.as_bytes(), &node)?;
        let sent = Moment::now();
        let committed = async { both.commit().await.map_err(Error::from) };
        match session.write(sent, committed).await {
            Ok(mut results) => match results.pop() {
                Some(MultiWriteResult::Create { path, .. }) => Ok(Some(path)),
                _ => Err(Error::UnexpectedError("a creation without its path".to_owned())),
            },
            Err(Error::NodeExists) => Ok(None),
            Err(Error::NoNode) => {
                client.mkdir(&self.0.root, &container).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// An owner's node, as the whole ensemble knows it.
    async fn find(
        &self,
        session: &Session,
        folder: &str,
        owner: &OwnerId,
    ) -> Result<Option<(Entry, FencingToken)>, BackendError> {
        let client = &session.client;
        let sent = Moment::now();
        let answer = async {
            // What an old connection has left behind is refused from here on.
            match client.sync(folder).await {
                Err(Error::NoNode) => return Ok(None),
                answer => answer?,
            }
            let prefix = queue::identity(owner);
            let entries = match client.list_children(folder).await {
                Err(Error::NoNode) => return Ok(None),
                names => queue::entries(names?),
            };
            let Some(entry) = entries.into_iter().find(|entry| entry.name.starts_with(&prefix))
            else {
                return Ok(None);
            };
            let stat = client.check_stat(&format!("{folder}/{}", entry.name)).await?;
            Ok(stat.map(|stat| (entry, FencingToken::new(stat.czxid.unsigned_abs()))))
        };
        session.read(sent, answer).await.map_err(|error| self.failed(&error))
    }

    /// Where this place stands now, behind the node of which path, and another number of permits by which
    /// somebody before it counts; `None` if it has been removed.
    async fn standing(
        &self,
        claim: &Claim,
        place: &Place,
    ) -> Result<Option<(Standing<String>, Option<NonZeroU32>)>, BackendError> {
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
        let ahead = queue::before(entries, place.sequence);
        let other_permits = claim.sharing.other_permits(ahead.iter().map(|entry| entry.sharing));
        let path = |entry: Entry| (format!("{}/{}", place.folder, entry.name), entry.sharing);
        let standing = standing(claim.sharing, ahead.into_iter().map(path).collect());
        Ok(Some((standing, other_permits)))
    }

    /// The lock is this place's: for how long is surely known?
    async fn grant(
        &self,
        claim: &Claim,
        place: &Place,
        began: Moment,
    ) -> Result<Attempt, BackendError> {
        // After a wait the session has to be proved anew.
        if place.session.remaining() < place.session.timeout / 3 && !self.prove(place).await? {
            return Err(self.removed(claim));
        }
        Ok(Attempt::granted(place.token, place.lasts_from(began)))
    }

    /// A place that somebody has removed is no place: the next try takes another one.
    fn removed(&self, claim: &Claim) -> BackendError {
        self.places().remove(&claim.owner);
        BackendError::transient(format!(
            "zookeeper at {}: the place in the queue was removed by somebody else",
            self.0.ensemble.hosts
        ))
    }

    /// Has the ensemble commit that this node is there; false if it is not. A check changes nothing, so it
    /// wakes nobody who watches the node.
    async fn prove(&self, place: &Place) -> Result<bool, BackendError> {
        let mut check = place.session.client.new_multi_writer();
        check.add_check_version(&place.path, 0).map_err(|error| self.failed(&error))?;
        let sent = Moment::now();
        let committed = async { check.commit().await.map_err(Error::from) };
        match place.session.write(sent, committed).await {
            Ok(_) => Ok(true),
            Err(Error::NoNode | Error::BadVersion | Error::SessionExpired) => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.given_up.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let began = Moment::now();
        let place = self.line_up(claim).await?;
        match self.standing(claim, &place).await? {
            Some((Standing::Admitted, other_permits)) => {
                let granted = self.grant(claim, &place, began).await?;
                Ok(granted.with_other_permits(other_permits))
            }
            None => Err(self.removed(claim)),
            Some((Standing::Behind(_) | Standing::Crowded, other_permits)) => {
                // A try does not wait: it leaves the queue.
                self.leave(claim, &place).await?;
                Ok(Attempt::busy(None).with_other_permits(other_permits))
            }
        }
    }

    async fn acquire_in_turn(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.given_up.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let began = Moment::now();
        loop {
            let place = self.line_up(claim).await?;
            match self.standing(claim, &place).await? {
                Some((Standing::Admitted, other_permits)) => {
                    let granted = self.grant(claim, &place, began).await?;
                    return Ok(granted.with_other_permits(other_permits));
                }
                None => return Err(self.removed(claim)),
                Some((Standing::Behind(before), _)) => {
                    self.until_gone(&place.session, &before).await?;
                }
                Some((Standing::Crowded, _)) => self.until_one_less(claim, &place).await?,
            }
        }
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
    async fn until_one_less(&self, claim: &Claim, place: &Place) -> Result<(), BackendError> {
        let session = &place.session;
        let watched = session.client.list_and_watch_children(&place.folder);
        let (names, changed) = match session.read(Moment::now(), watched).await {
            Err(Error::NoNode) => return Ok(()),
            answer => answer.map_err(|error| self.failed(&error))?,
        };
        let ahead = queue::before(queue::entries(names), place.sequence).into_iter();
        let ahead = ahead.map(|entry| (entry.sequence, entry.sharing)).collect();
        if standing(claim.sharing, ahead) != Standing::Crowded {
            return Ok(());
        }
        tokio::select! {
            _ = changed.changed() => Ok(()),
            () = session.disconnected() => Err(self.failed(&Error::ConnectionLoss)),
        }
    }

    /// Removes a place's node; false if it was not there any more.
    async fn leave(&self, claim: &Claim, place: &Place) -> Result<bool, BackendError> {
        let session = &place.session;
        let removed =
            match session.write(Moment::now(), session.client.delete(&place.path, None)).await {
                Ok(()) => true,
                Err(Error::NoNode | Error::SessionExpired | Error::ClientClosed) => false,
                Err(error) => return Err(self.failed(&error)),
            };
        self.places().remove(&claim.owner);
        Ok(removed)
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let place = self.places().get(&claim.owner).cloned();
        let Some(place) = place.filter(|place| place.session.lives()) else {
            return Ok(Renewal::NotHeld);
        };
        let began = Moment::now();
        if !self.prove(&place).await? {
            return Ok(Renewal::NotHeld);
        }
        Ok(Renewal::Renewed { validity: place.lasts_from(began) })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.0.given_up.note(claim);
        }
        let place = self.places().get(&claim.owner).cloned();
        let released = match place {
            Some(place) if place.session.lives() => self.leave(claim, &place).await?,
            Some(_) => {
                self.places().remove(&claim.owner);
                false
            }
            None => false,
        };
        if release.late_acquire && !released {
            self.remove_late(claim).await?;
        }
        Ok(if released { Released::Released } else { Released::NotHeld })
    }

    /// Removes a node whose creation was never answered, now and once more later: a server that stood still
    /// may execute what an old connection had sent after it has answered the new one.
    async fn remove_late(&self, claim: &Claim) -> Result<(), BackendError> {
        // In another session it would be gone.
        let Some(session) = self.living() else { return Ok(()) };
        let folder = queue::folder(&self.0.root, &claim.key);
        self.remove(&session, &folder, &claim.owner).await?;
        let (pause, owner) = (session.timeout / 2, claim.owner);
        let (inner, session) = (Arc::downgrade(&self.0), Arc::downgrade(&session));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let (Some(inner), Some(session)) = (inner.upgrade(), session.upgrade()) {
                let _ = Self(inner).remove(&session, &folder, &owner).await;
            }
        });
        Ok(())
    }

    async fn remove(
        &self,
        session: &Session,
        folder: &str,
        owner: &OwnerId,
    ) -> Result<(), BackendError> {
        let Some((entry, _)) = self.find(session, folder, owner).await? else { return Ok(()) };
        let path = format!("{folder}/{}", entry.name);
        match session.write(Moment::now(), session.client.delete(&path, None)).await {
            Ok(()) | Err(Error::NoNode) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    #[expect(clippy::unused_async, reason = "the seam's signature")]
    async fn watch(&self, _: &LockKey) -> Result<super::NoWatch, BackendError> {
        Err(BackendError::permanent(
            "zookeeper has a queue of its own: its waiters take their turn",
        ))
    }

    /// Who hold a key, as the whole ensemble knows it, the first one first.
    async fn holders(&self, session: &Session, folder: &str) -> Result<Vec<Entry>, BackendError> {
        Ok(hold(&self.queue(session, folder).await?))
    }

    /// Who stand in a folder's queue, as the whole ensemble knows it.
    async fn queue(&self, session: &Session, folder: &str) -> Result<Vec<Entry>, BackendError> {
        let client = &session.client;
        let sent = Moment::now();
        let names = async {
            client.sync(folder).await?;
            client.list_children(folder).await
        };
        match session.read(sent, names).await {
            Ok(names) => Ok(queue::in_order(queue::entries(names))),
            Err(Error::NoNode) => Ok(vec![]),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let session = self.session().await?;
        let root = if self.0.root.is_empty() { "/" } else { &self.0.root };
        let folders = session.read(Moment::now(), session.client.list_children(root)).await;
        let folders = match folders {
            Err(Error::NoNode) => vec![],
            answer => answer.map_err(|error| self.failed(&error))?,
        };
        let keys = folders.iter().filter_map(|folder| queue::key(folder));
        let mut keys: Vec<_> = keys.filter(|key| key.as_str().starts_with(prefix)).collect();
        keys.sort();
        let mut states = vec![];
        for key in keys {
            let state = self.state(&session, key).await?;
            if !state.is_idle() {
                states.push(state);
            }
            if states.len() == MOST_LISTED {
                break;
            }
        }
        Ok(states)
    }

    async fn state(&self, session: &Session, key: LockKey) -> Result<LockState, BackendError> {
        let folder = queue::folder(&self.0.root, &key);
        let entries = self.queue(session, &folder).await?;
        let holding = hold(&entries);
        let (mut holders, mut waiters) = (vec![], vec![]);
        for entry in entries {
            let Some(holder) = self.holder(session, &folder, &entry).await? else { continue };
            if holding.contains(&entry) {
                holders.push(holder);
            } else {
                waiters.push(Waiter::new(holder.owner, entry.sharing, holder.claimant));
            }
        }
        Ok(LockState::new(key, holders, waiters))
    }

    /// Who stands there, taken for a holder; `None` if the node is gone.
    async fn holder(
        &self,
        session: &Session,
        folder: &str,
        entry: &Entry,
    ) -> Result<Option<Holder>, BackendError> {
        let path = format!("{folder}/{}", entry.name);
        match session.read(Moment::now(), session.client.get_data(&path)).await {
            Ok((data, stat)) => {
                let token = FencingToken::new(stat.czxid.unsigned_abs());
                let data = String::from_utf8_lossy(&data).into_owned();
                let holder = Holder::new(queue::owner(&entry.name), token, session.timeout)
                    .with_sharing(entry.sharing)
                    .with_claimant(Claimant::parse(data.trim_start_matches(REVOKED)))
                    .with_revoked(data == CURATORS_REVOKED || data.starts_with(REVOKED));
                Ok(Some(holder))
            }
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Writes to the holders' nodes: the next proof of a dlock finds another version, and a Curator client
    /// that made its lock revocable is told.
    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        let session = self.session().await?;
        let folder = queue::folder(&self.0.root, key);
        let mut held = false;
        for entry in self.holders(&session, &folder).await? {
            let Some(holder) = self.holder(&session, &folder, &entry).await? else { continue };
            held = true;
            if holder.revoked {
                continue;
            }
            let data = match holder.claimant {
                Some(claimant) => format!("{REVOKED}{}", claimant.to_text()),
                None => CURATORS_REVOKED.to_owned(),
            };
            let path = format!("{folder}/{}", entry.name);
            let write = session.client.set_data(&path, data.as_bytes(), None);
            match session.write(Moment::now(), write).await {
                Ok(_) | Err(Error::NoNode) => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(held)
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let session = self.session().await?;
        let folder = queue::folder(&self.0.root, key);
        let Some(head) = self.holders(&session, &folder).await?.into_iter().next() else {
            return Ok(None);
        };
        self.holder(&session, &folder, &head).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let session = self.session().await?;
        let folder = queue::folder(&self.0.root, key);
        let mut held = false;
        for entry in self.holders(&session, &folder).await? {
            let path = format!("{folder}/{}", entry.name);
            match session.write(Moment::now(), session.client.delete(&path, None)).await {
                Ok(()) => held = true,
                Err(Error::NoNode) => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(held)
    }
}

/// Those of a queue who hold the key.
fn hold(queue: &[Entry]) -> Vec<Entry> {
    holders(queue.iter().map(|entry| (entry.clone(), entry.sharing)).collect())
}

backend_by_async_methods!(ZooKeeper, "zookeeper", ZooKeeper::capabilities, in_turn);

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper")
            .field("hosts", &self.0.ensemble.hosts)
            .field("root", &self.0.root)
            .finish_non_exhaustive()
    }
}
