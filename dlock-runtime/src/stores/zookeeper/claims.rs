//! The nodes of this process's claims: created once each, found again when an answer was lost, removed for good.
//!
//! When the answer to a create is lost, the server may have executed it or not. A claim is therefore *doubtful* from
//! before its create is sent until the answer arrives. Before another node is created for a doubtful claim, its node is
//! looked up by the owner in the name (as Curator does with its protected names). After the release of a doubtful claim
//! it is looked up once more.

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

/// What this process knows about a claim's node.
#[derive(Clone)]
pub(super) enum Known {
    /// A create was sent in this session: the node may exist, or may exist soon.
    Doubtful(Arc<Session>),
    There(Arc<OwnNode>),
    /// Like `Doubtful`, but the claim was released, and a task removes whatever may exist.
    Abandoned(Arc<Session>),
}

/// A claim's node in its queue.
pub(super) struct OwnNode {
    pub(super) session: Arc<Session>,
    pub(super) folder: String,
    pub(super) path: String,
    pub(super) sequence: i32,
    pub(super) token: FencingToken,
    /// The answer to a create was lost, so the claim may have more nodes, now or later.
    doubtful: bool,
}

impl OwnNode {
    /// How long the node provably lasts, counted from this moment.
    pub(super) fn lasts_from(&self, began: Moment) -> Duration {
        Moment::now().since(&began) + self.session.remaining()
    }
}

impl Known {
    fn session(&self) -> &Arc<Session> {
        match self {
            Self::Doubtful(session) | Self::Abandoned(session) => session,
            Self::There(node) => &node.session,
        }
    }

    /// The nodes of an ended session are gone.
    pub(super) fn lives(&self) -> bool {
        self.session().lives()
    }
}

impl ZooKeeper {
    fn known(&self, owner: &OwnerId) -> Option<Known> {
        self.claims().get(owner).cloned().filter(Known::lives)
    }

    /// The claim's node, if it provably has one.
    pub(super) fn own_node(&self, owner: &OwnerId) -> Option<Arc<OwnNode>> {
        match self.known(owner)? {
            Known::There(node) => Some(node),
            Known::Doubtful(_) | Known::Abandoned(_) => None,
        }
    }

    /// The claim's node in its queue. It is created if the claim has none.
    pub(super) async fn join_queue(&self, claim: &Claim) -> Result<Arc<OwnNode>, BackendError> {
        let (session, doubtful) = match self.known(&claim.owner) {
            Some(Known::There(node)) => return Ok(node),
            Some(Known::Doubtful(session)) => (session, true),
            Some(Known::Abandoned(_)) => return Err(self.gone("the claim was released")),
            None => (self.session().await?, false),
        };
        if doubtful && let Some(node) = self.find_again(&session, claim).await? {
            return Ok(node);
        }
        // The claim is doubtful until the create is answered.
        self.claims().insert(claim.owner, Known::Doubtful(Arc::clone(&session)));
        match self.create(&session, claim).await {
            Ok(node) => Ok(self.note(claim, OwnNode { doubtful, ..node })),
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

    fn note(&self, claim: &Claim, node: OwnNode) -> Arc<OwnNode> {
        let node = Arc::new(node);
        self.claims().insert(claim.owner, Known::There(Arc::clone(&node)));
        node
    }

    async fn create(&self, session: &Arc<Session>, claim: &Claim) -> Result<OwnNode, Error> {
        let data = claim.client_info.to_text();
        let folder = queue::folder(&self.0.root, &claim.key);
        let prefix = format!("{folder}/{}", queue::prefix(&claim.owner, claim.mode));
        let client = &session.client;
        let node = |path: String, sequence: i32, czxid: i64| OwnNode {
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
                    return Ok(node(format!("{prefix}{sequence:010}"), sequence, stat.czxid));
                }
                Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            }
            // The folder does not exist: the key is new, or was unused for a while.
            if let Some(path) = self.create_with_folder(session, &folder, &prefix, &data).await?
                && let Some(parsed) = queue::parse(path.clone())
                && let Some(stat) = client.check_stat(&path).await?
            {
                return Ok(node(path, parsed.sequence, stat.czxid));
            }
        }
        Err(Error::NoNode)
    }

    /// Creates the folder and the node in it, both or neither, because the server never removes a folder that never
    /// had a node. The answer is `None` if another client created the folder first, or if the root was missing.
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
                _ => Err(Error::UnexpectedError("the answer to a create has no path".to_owned())),
            },
            Err(Error::NodeExists) => Ok(None),
            Err(Error::NoNode) => {
                client.mkdir(&self.0.root, &container).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The node of a doubtful claim, if it exists. If there are several, it is the first one.
    async fn find_again(
        &self,
        session: &Arc<Session>,
        claim: &Claim,
    ) -> Result<Option<Arc<OwnNode>>, BackendError> {
        let folder = queue::folder(&self.0.root, &claim.key);
        let found = self.find(session, &folder, &claim.owner).await?;
        for node in found {
            let path = format!("{folder}/{}", node.name);
            let stat = session.read(Moment::now(), session.client.check_stat(&path)).await;
            let Some(stat) = stat.map_err(|error| self.failed(&error))? else { continue };
            return Ok(Some(self.note(
                claim,
                OwnNode {
                    session: Arc::clone(session),
                    folder,
                    path,
                    sequence: node.sequence,
                    token: FencingToken::new(stat.czxid.unsigned_abs()),
                    doubtful: true,
                },
            )));
        }
        Ok(None)
    }

    /// An owner's nodes as the whole ensemble knows them, in the order of the queue.
    async fn find(
        &self,
        session: &Session,
        folder: &str,
        owner: &OwnerId,
    ) -> Result<Vec<QueueNode>, BackendError> {
        let prefix = queue::identity(owner);
        // From here on, what an old connection of the session to another server left behind is rejected. The same server
        // may still execute it: see `remove_doubtful`.
        let mut nodes = self.queue(session, folder).await?;
        nodes.retain(|node| node.name.starts_with(&prefix));
        Ok(nodes)
    }

    /// Forgets a node that another client removed. The next try creates another one.
    pub(super) fn removed(&self, claim: &Claim, node: &OwnNode) -> BackendError {
        if node.doubtful {
            let doubtful = Known::Doubtful(Arc::clone(&node.session));
            self.claims().insert(claim.owner, doubtful);
        } else {
            self.claims().remove(&claim.owner);
        }
        self.gone("another client removed it")
    }

    fn gone(&self, why: &str) -> BackendError {
        let hosts = &self.0.ensemble.hosts;
        BackendError::transient(format!(
            "zookeeper at {hosts}: the node in the queue is gone: {why}"
        ))
    }

    /// Removes a claim's node, and any other node that may exist for it.
    pub(super) async fn remove(&self, claim: &Claim) -> Result<Released, BackendError> {
        let released = match self.known(&claim.owner) {
            Some(Known::There(node)) => {
                let removed = self.delete(&node.session, &node.path).await?;
                if node.doubtful {
                    self.remove_doubtful(&node.session, claim).await?;
                } else {
                    self.claims().remove(&claim.owner);
                }
                removed
            }
            Some(Known::Doubtful(session) | Known::Abandoned(session)) => {
                self.remove_doubtful(&session, claim).await?;
                false
            }
            // No create was sent, or its node is gone with the session.
            None => {
                self.claims().remove(&claim.owner);
                false
            }
        };
        Ok(if released { Released::Released } else { Released::NotHeld })
    }

    /// Deletes a node. The answer is false if it no longer existed.
    async fn delete(&self, session: &Session, path: &str) -> Result<bool, BackendError> {
        match session.write(Moment::now(), session.client.delete(path, None)).await {
            Ok(()) => Ok(true),
            Err(Error::NoNode | Error::SessionExpired | Error::ClientClosed) => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Removes whatever may exist of a doubtful claim: now, or as soon as the ensemble answers, and once more later. A
    /// server that was paused may execute the requests of an old connection after it has answered the new one.
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

    /// Retries until it has succeeded or the session ends, because the nodes exist as long as the session does.
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
        for node in self.find(session, folder, owner).await? {
            self.delete(session, &format!("{folder}/{}", node.name)).await?;
        }
        Ok(())
    }
}
