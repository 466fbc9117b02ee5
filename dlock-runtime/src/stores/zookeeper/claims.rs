//! The nodes of this process's claims: created once each, found again when an answer was lost, removed for good.
//!
//! Whether a creation was executed is not known when its answer does not come. So a claim is *doubtful* from before
//! its creation is sent until the answer is there. A doubtful claim is looked for by the owner in the name of its node
//! (as Curator does with its protected names) before another node is created for it, and once more after it was
//! released.

use std::sync::Arc;
use std::time::Duration;

use zookeeper_client::{CreateMode, Error, MultiWriteResult};

use super::queue::{self, QueueNode};
use super::session::{Session, is_refusal};
use super::{TRIES, ZooKeeper};
use crate::backend::{Claim, Released};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::error::BackendError;
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// What this process knows of a claim's node.
#[derive(Clone)]
pub(super) enum Known {
    /// A creation was sent in this session: there may be a node, or there may be one soon.
    Doubtful(Arc<Session>),
    There(Arc<OwnNode>),
    /// As `Doubtful`; it was released, and a task removes what there may be.
    Abandoned(Arc<Session>),
}

/// A node in a queue.
pub(super) struct OwnNode {
    pub(super) session: Arc<Session>,
    pub(super) folder: String,
    pub(super) path: String,
    pub(super) sequence: i32,
    pub(super) token: FencingToken,
    /// More than one creation was sent for it.
    doubtful: bool,
}

impl OwnNode {
    /// How long it surely lasts, counted from this moment.
    pub(super) fn lasts_from(&self, began: Moment) -> Duration {
        Moment::now().since(&began) + self.session.remaining()
    }
}

impl Known {
    fn session(&self) -> &Arc<Session> {
        match self {
            Self::Doubtful(session) | Self::Abandoned(session) => session,
            Self::There(place) => &place.session,
        }
    }

    /// Those of a session that has ended have gone with it.
    pub(super) fn lives(&self) -> bool {
        self.session().lives()
    }
}

impl ZooKeeper {
    fn known(&self, owner: &OwnerId) -> Option<Known> {
        self.claims().get(owner).cloned().filter(Known::lives)
    }

    /// The claim's place, if it surely has one.
    pub(super) fn place(&self, owner: &OwnerId) -> Option<Arc<OwnNode>> {
        match self.known(owner)? {
            Known::There(place) => Some(place),
            Known::Doubtful(_) | Known::Abandoned(_) => None,
        }
    }

    /// The claim's place in its queue, a new one if it has none.
    pub(super) async fn line_up(&self, claim: &Claim) -> Result<Arc<OwnNode>, BackendError> {
        let (session, doubtful) = match self.known(&claim.owner) {
            Some(Known::There(place)) => return Ok(place),
            Some(Known::Doubtful(session)) => (session, true),
            Some(Known::Abandoned(_)) => return Err(self.gone("it was released")),
            None => (self.session().await?, false),
        };
        if doubtful && let Some(place) = self.find_again(&session, claim).await? {
            return Ok(place);
        }
        // From here on it is not known whether there is a node, until somebody says so.
        self.claims().insert(claim.owner, Known::Doubtful(Arc::clone(&session)));
        match self.create(&session, claim).await {
            Ok(place) => Ok(self.note(claim, OwnNode { doubtful, ..place })),
            Err(error) if is_refusal(&error) => {
                if !doubtful {
                    self.claims().remove(&claim.owner);
                }
                Err(self.failed(&error))
            }
            Err(error) => {
                let found = self.find_again(&session, claim).await?;
                found.ok_or_else(|| self.failed(&error))
            }
        }
    }

    fn note(&self, claim: &Claim, place: OwnNode) -> Arc<OwnNode> {
        let place = Arc::new(place);
        self.claims().insert(claim.owner, Known::There(Arc::clone(&place)));
        place
    }

    async fn create(&self, session: &Arc<Session>, claim: &Claim) -> Result<OwnNode, Error> {
        let data = claim.client_info.to_text();
        let folder = queue::folder(&self.0.root, &claim.key);
        let prefix = format!("{folder}/{}", queue::prefix(&claim.owner, claim.mode));
        let client = &session.client;
        let place = |path: String, sequence: i32, czxid: i64| OwnNode {
            session: Arc::clone(session),
            folder: folder.clone(),
            path,
            sequence,
            token: FencingToken::new(czxid.unsigned_abs()),
            doubtful: false,
        };
        for _ in 0..TRIES {
            let options = CreateMode::EphemeralSequential.with_acls(self.0.acls);
            let sent = Moment::now();
            let created =
                session.write(sent, client.create(&prefix, data.as_bytes(), &options)).await;
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
            if let Some(path) = self.create_with_folder(session, &folder, &prefix, &data).await?
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

    /// The place of a doubtful claim, if it has one: the first of its nodes, should there be several.
    async fn find_again(
        &self,
        session: &Arc<Session>,
        claim: &Claim,
    ) -> Result<Option<Arc<OwnNode>>, BackendError> {
        let folder = queue::folder(&self.0.root, &claim.key);
        let found = self.find(session, &folder, &claim.owner).await?;
        for entry in found {
            let path = format!("{folder}/{}", entry.name);
            let stat = session.read(Moment::now(), session.client.check_stat(&path)).await;
            let Some(stat) = stat.map_err(|error| self.failed(&error))? else { continue };
            return Ok(Some(self.note(
                claim,
                OwnNode {
                    session: Arc::clone(session),
                    folder,
                    path,
                    sequence: entry.sequence,
                    token: FencingToken::new(stat.czxid.unsigned_abs()),
                    doubtful: true,
                },
            )));
        }
        Ok(None)
    }

    /// An owner's nodes, as the whole ensemble knows them, in their order.
    async fn find(
        &self,
        session: &Session,
        folder: &str,
        owner: &OwnerId,
    ) -> Result<Vec<QueueNode>, BackendError> {
        let prefix = queue::identity(owner);
        // What an old connection has left behind is refused from here on.
        let mut entries = self.queue(session, folder).await?;
        entries.retain(|entry| entry.name.starts_with(&prefix));
        Ok(entries)
    }

    /// A place that somebody has removed is no place: the next try takes another one.
    pub(super) fn removed(&self, claim: &Claim, place: &OwnNode) -> BackendError {
        if place.doubtful {
            let doubtful = Known::Doubtful(Arc::clone(&place.session));
            self.claims().insert(claim.owner, doubtful);
        } else {
            self.claims().remove(&claim.owner);
        }
        self.gone("it was removed by somebody else")
    }

    fn gone(&self, why: &str) -> BackendError {
        let hosts = &self.0.ensemble.hosts;
        BackendError::transient(format!("zookeeper at {hosts} has no place in the queue: {why}"))
    }

    /// Removes a claim's node, and whatever else there may be of it.
    pub(super) async fn remove(&self, claim: &Claim) -> Result<Released, BackendError> {
        let released = match self.known(&claim.owner) {
            Some(Known::There(place)) => {
                let removed = self.delete(&place.session, &place.path).await?;
                if place.doubtful {
                    self.remove_doubtful(&place.session, claim).await?;
                } else {
                    self.claims().remove(&claim.owner);
                }
                removed
            }
            Some(Known::Doubtful(session) | Known::Abandoned(session)) => {
                self.remove_doubtful(&session, claim).await?;
                false
            }
            // Nothing was ever sent, or what was has gone with its session.
            None => {
                self.claims().remove(&claim.owner);
                false
            }
        };
        Ok(if released { Released::Released } else { Released::NotHeld })
    }

    /// Removes a node; false if it was not there any more.
    async fn delete(&self, session: &Session, path: &str) -> Result<bool, BackendError> {
        match session.write(Moment::now(), session.client.delete(path, None)).await {
            Ok(()) => Ok(true),
            Err(Error::NoNode | Error::SessionExpired | Error::ClientClosed) => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Removes what there may be of a doubtful claim: now, or as soon as the ensemble answers, and once more
    /// later: a server that stood still may execute what an old connection had sent after it has answered the new
    /// one.
    async fn remove_doubtful(
        &self,
        session: &Arc<Session>,
        claim: &Claim,
    ) -> Result<(), BackendError> {
        let folder = queue::folder(&self.0.root, &claim.key);
        let answer = self.remove_all(session, &folder, &claim.owner).await;
        let abandoned = Known::Abandoned(Arc::clone(session));
        let before = self.claims().insert(claim.owner, abandoned);
        if !matches!(before, Some(Known::Abandoned(_))) {
            self.remove_later(session, folder, claim.owner, answer.is_ok());
        }
        answer
    }

    /// As long as the session lives, so do its nodes: nothing but its end ends this.
    fn remove_later(
        &self,
        session: &Arc<Session>,
        folder: String,
        owner: OwnerId,
        removed_once: bool,
    ) {
        let timeout = session.timeout;
        let (inner, session) = (Arc::downgrade(&self.0), Arc::downgrade(session));
        tokio::spawn(async move {
            for is_late in [false, true] {
                if is_late {
                    tokio::time::sleep(timeout / 2).await;
                } else if removed_once {
                    continue;
                }
                let mut pauses = Backoff::new(timeout / 20, timeout / 2);
                loop {
                    let (Some(inner), Some(session)) = (inner.upgrade(), session.upgrade()) else {
                        return;
                    };
                    if !session.lives() {
                        return;
                    }
                    let store = Self(inner);
                    if store.remove_all(&session, &folder, &owner).await.is_ok() {
                        break;
                    }
                    drop((store, session));
                    tokio::time::sleep(pauses.pause()).await;
                }
            }
            if let Some(inner) = inner.upgrade() {
                let store = Self(inner);
                let mut claims = store.claims();
                if matches!(claims.get(&owner), Some(Known::Abandoned(_))) {
                    claims.remove(&owner);
                }
            }
        });
    }

    async fn remove_all(
        &self,
        session: &Session,
        folder: &str,
        owner: &OwnerId,
    ) -> Result<(), BackendError> {
        for entry in self.find(session, folder, owner).await? {
            self.delete(session, &format!("{folder}/{}", entry.name)).await?;
        }
        Ok(())
    }
}
