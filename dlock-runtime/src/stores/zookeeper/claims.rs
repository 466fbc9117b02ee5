//! The nodes of this process's claims: created once each, found again when an answer was lost, removed for good.
//!
//! When the answer to a create is lost, the server may have executed it or not. A claim is therefore *doubtful* from
//! before its create is sent until the answer arrives. Before another node is created for a doubtful claim, its node is
//! looked up by the owner in the name (as Curator does with its protected names). After the release of a doubtful claim
//! it is looked up once more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use zookeeper_client::Error;

use super::ZooKeeper;
use super::batches::{Entered, Entry, Gate, Reply, Request};
use super::queue::{self, QueueNode};
use super::session::{Session, is_refusal};
use crate::backend::{Claim, Released};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::error::BackendError;
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// What this process knows about a claim's node.
#[derive(Clone)]
pub(super) enum Known {
    /// A create may have been sent in this session, or is about to be: the node may exist, or may exist soon.
    Doubtful(Arc<Session>, Gate),
    There(Arc<OwnNode>),
    /// Like `Doubtful`, but the claim was released, and a task removes whatever may exist.
    Abandoned(Arc<Session>),
}

/// A claim's node in its queue.
pub(super) struct OwnNode {
    pub(super) session: Arc<Session>,
    pub(super) path: String,
    /// How much of the path is that of the folder.
    folder: usize,
    pub(super) sequence: i32,
    pub(super) token: FencingToken,
    /// The answer to a create was lost, so the claim may have more nodes, now or later.
    doubtful: bool,
}

/// A claim's node, and the names that were read in its folder after it had joined the queue.
pub(super) struct Joined {
    pub(super) node: Arc<OwnNode>,
    pub(super) names: Option<Vec<String>>,
}

impl OwnNode {
    pub(super) fn folder(&self) -> &str {
        &self.path[..self.folder]
    }

    /// How long the node provably lasts, counted from this moment.
    pub(super) fn lasts_from(&self, began: Moment) -> Duration {
        Moment::now().since(&began) + self.session.remaining()
    }
}

impl Known {
    fn session(&self) -> &Arc<Session> {
        match self {
            Self::Doubtful(session, _) | Self::Abandoned(session) => session,
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
            Known::Doubtful(..) | Known::Abandoned(_) => None,
        }
    }

    /// The claim's node in its queue. It is created if the claim has none.
    pub(super) async fn join_queue(&self, claim: &Claim) -> Result<Joined, BackendError> {
        let (session, doubtful) = match self.known(&claim.owner) {
            Some(Known::There(node)) => return Ok(Joined { node, names: None }),
            Some(Known::Doubtful(session, gate)) => {
                // The earlier create must not be sent beside the one below.
                session.close(&gate);
                (session, true)
            }
            Some(Known::Abandoned(_)) => return Err(self.gone("the claim was released")),
            None => (self.session().await?, false),
        };
        if doubtful && let Some(node) = self.find_again(&session, claim).await? {
            return Ok(Joined { node, names: None });
        }
        // The claim is doubtful until the create is answered.
        let gate = Gate::default();
        let known = Known::Doubtful(Arc::clone(&session), gate.clone());
        self.claims().insert(claim.owner, known);
        match self.create(&session, claim, gate).await {
            Ok(entered) => self.joined(session, claim, entered, doubtful),
            Err(error) if is_refusal(&error) => {
                if !doubtful {
                    self.claims().remove(&claim.owner);
                }
                Err(self.failed(&error))
            }
            Err(error) => {
                let found = self.find_again(&session, claim).await?;
                let node = found.ok_or_else(|| self.failed(&error))?;
                Ok(Joined { node, names: None })
            }
        }
    }

    async fn create(&self, session: &Session, claim: &Claim, gate: Gate) -> Result<Entered, Error> {
        let folder = queue::folder(&session.root, &claim.key);
        let prefix = format!("{folder}/{}", queue::prefix(&claim.owner, claim.mode));
        let data = claim.client_info.to_text();
        let entry = Entry { folder, prefix, data, gate };
        match session.creates.send(Request::Enter(entry)).await? {
            Reply::Entered(entered) => Ok(entered),
            Reply::Left => Err(Error::UnexpectedError("no answer to a create".to_owned())),
        }
    }

    fn joined(
        &self,
        session: Arc<Session>,
        claim: &Claim,
        entered: Entered,
        doubtful: bool,
    ) -> Result<Joined, BackendError> {
        let Entered { path, sequence, czxid, names } = entered;
        let folder = path.rfind('/').unwrap_or(0);
        let token = FencingToken::new(czxid.unsigned_abs());
        let node = self.note(claim, OwnNode { session, path, folder, sequence, token, doubtful });
        Ok(Joined { node, names: Some(names.map_err(|error| self.failed(&error))?) })
    }

    fn note(&self, claim: &Claim, node: OwnNode) -> Arc<OwnNode> {
        let node = Arc::new(node);
        self.claims().insert(claim.owner, Known::There(Arc::clone(&node)));
        node
    }

    /// The node of a doubtful claim, if it exists. If there are several, it is the first one.
    async fn find_again(
        &self,
        session: &Arc<Session>,
        claim: &Claim,
    ) -> Result<Option<Arc<OwnNode>>, BackendError> {
        let folder = queue::folder(&self.0.ensemble.root, &claim.key);
        let found = self.find(session, &folder, &claim.owner).await?;
        for node in found {
            let path = format!("{folder}/{}", node.name);
            let stat = session.read(Moment::now(), session.client.check_stat(&path)).await;
            let Some(stat) = stat.map_err(|error| self.failed(&error))? else { continue };
            return Ok(Some(self.note(
                claim,
                OwnNode {
                    session: Arc::clone(session),
                    path,
                    folder: folder.len(),
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
        let _room = self.0.room.enter().await;
        // From here on, what an old connection of the session to another server left behind is rejected. The same server
        // may still execute it: see `remove_doubtful`.
        let mut nodes = self.queue(session, folder).await?;
        nodes.retain(|node| node.name.starts_with(&prefix));
        Ok(nodes)
    }

    /// Forgets a node that another client removed. The next try creates another one.
    pub(super) fn removed(&self, claim: &Claim, node: &OwnNode) -> BackendError {
        if node.doubtful {
            let doubtful = Known::Doubtful(Arc::clone(&node.session), Gate::default());
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
                let removed = self.delete(&node.session, node.path.clone()).await?;
                if node.doubtful {
                    self.remove_doubtful(&node.session, claim).await?;
                } else {
                    self.claims().remove(&claim.owner);
                }
                removed
            }
            Some(Known::Doubtful(session, _) | Known::Abandoned(session)) => {
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
    async fn delete(&self, session: &Session, path: String) -> Result<bool, BackendError> {
        match session.deletes.send(Request::Leave(path)).await {
            Ok(_) => Ok(true),
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
        let folder = queue::folder(&session.root, &claim.key);
        let abandoned = Known::Abandoned(Arc::clone(session));
        let before = self.claims().insert(claim.owner, abandoned);
        if let Some(Known::Abandoned(_)) = before {
            return self.remove_all(session, &folder, &claim.owner).await;
        }
        if let Some(Known::Doubtful(session, gate)) = before {
            // Whatever is sent from here on shows every node that was created.
            session.close(&gate);
        }
        let first = self.remove_in_background(session, folder, claim.owner);
        first.await.unwrap_or_else(|_| Err(self.failed(&Error::ConnectionLoss)))
    }

    /// Removes an owner's nodes now and once more later, and tells how the first attempt went. Retries until it has
    /// succeeded or the session ends, because the nodes exist as long as the session does.
    fn remove_in_background(
        &self,
        session: &Arc<Session>,
        folder: String,
        owner: OwnerId,
    ) -> oneshot::Receiver<Result<(), BackendError>> {
        let timeout = session.timeout;
        let (inner, session) = (Arc::downgrade(&self.0), Arc::downgrade(session));
        let (first, told) = oneshot::channel();
        let mut first = Some(first);
        tokio::spawn(async move {
            for is_late in [false, true] {
                if is_late {
                    tokio::time::sleep(timeout / 2).await;
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
                    let answer = store.remove_all(&session, &folder, &owner).await;
                    let removed = answer.is_ok();
                    if let Some(first) = first.take() {
                        // The caller may be gone.
                        let _ = first.send(answer);
                    }
                    if removed {
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
        told
    }

    async fn remove_all(
        &self,
        session: &Session,
        folder: &str,
        owner: &OwnerId,
    ) -> Result<(), BackendError> {
        for node in self.find(session, folder, owner).await? {
            self.delete(session, format!("{folder}/{}", node.name)).await?;
        }
        Ok(())
    }
}
