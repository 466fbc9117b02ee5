//! For operators: who holds and who waits, how a hold is ended from outside, and how folders are opened to new
//! credentials.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use zookeeper_client::{Acl, Error};

use super::ZooKeeper;
use super::queue::{self, QueueNode};
use super::session::Session;
use crate::backend::{Holder, LockState, MAX_LISTED, Waiter};
use crate::client_info::ClientInfo;
use crate::clock::Moment;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::shared::node_queue::{InQueue, split_holders};
use crate::stores::shared::queue_codec::{mark_revoked, split_revoked};
use crate::token::FencingToken;

/// What Curator's `Revoker` writes into the node of a revoked hold.
const CURATORS_REVOKED: &str = "__REVOKE__";

/// How many folders are opened concurrently.
const OPENED_AT_ONCE: usize = 32;

impl ZooKeeper {
    /// The holders of a key as the whole ensemble knows them, in the order of the queue.
    async fn holders(
        &self,
        session: &Session,
        folder: &str,
    ) -> Result<Vec<QueueNode>, BackendError> {
        Ok(split_holders(self.queue(session, folder).await?).0)
    }

    /// The queue in a folder as the whole ensemble knows it.
    pub(super) async fn queue(
        &self,
        session: &Session,
        folder: &str,
    ) -> Result<Vec<QueueNode>, BackendError> {
        let client = &session.client;
        let sent = Moment::now();
        let names = async {
            client.sync(folder).await?;
            client.list_children(folder).await
        };
        match session.read(sent, names).await {
            Ok(names) => Ok(queue::in_order(queue::nodes(names))),
            Err(Error::NoNode) => Ok(vec![]),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Opens the root and the existing folders to all credentials of this session. One of them must be allowed to.
    pub(super) async fn open_folders(&self, acls: &[Acl]) -> Result<(), BackendError> {
        let session = self.session().await?;
        let root = &self.0.ensemble.root;
        if root.is_empty() {
            return Ok(());
        }
        let folders = session.read(Moment::now(), session.client.list_children(root)).await;
        let folders = match folders {
            Err(Error::NoNode) => return Ok(()),
            answer => answer.map_err(|error| self.failed(&error))?,
        };
        let folders = folders.into_iter().map(|folder| format!("{root}/{folder}"));
        let paths = std::iter::once(root.clone()).chain(folders);
        let opened = stream::iter(paths).map(|path| {
            let session = &session;
            async move {
                let set = session.client.set_acl(&path, acls, None);
                match session.write(Moment::now(), set).await {
                    Ok(_) | Err(Error::NoNode) => Ok(()),
                    Err(error) => Err(self.failed(&error)),
                }
            }
        });
        opened.buffer_unordered(OPENED_AT_ONCE).try_collect().await
    }

    pub(super) async fn states(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let session = self.session().await?;
        let root = if self.0.ensemble.root.is_empty() { "/" } else { &self.0.ensemble.root };
        let client = &session.client;
        // A follower may not know yet about a folder that was created through another server.
        let folders = async {
            client.sync(root).await?;
            client.list_children(root).await
        };
        let folders = match session.read(Moment::now(), folders).await {
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
            if states.len() == MAX_LISTED {
                break;
            }
        }
        Ok(states)
    }

    async fn state(&self, session: &Session, key: LockKey) -> Result<LockState, BackendError> {
        let folder = queue::folder(&self.0.ensemble.root, &key);
        let (holding, waiting) = split_holders(self.queue(session, &folder).await?);
        let (mut holders, mut waiters) = (vec![], vec![]);
        for node in holding {
            holders.extend(self.holder(session, &folder, &node).await?);
        }
        for node in waiting {
            if let Some(waiter) = self.holder(session, &folder, &node).await? {
                waiters.push(Waiter::new(waiter.owner, node.mode(), waiter.client_info));
            }
        }
        Ok(LockState::new(key, holders, waiters))
    }

    /// A node as a holder. The answer is `None` if the node is gone.
    async fn holder(
        &self,
        session: &Session,
        folder: &str,
        node: &QueueNode,
    ) -> Result<Option<Holder>, BackendError> {
        let path = format!("{folder}/{}", node.name);
        match session.read(Moment::now(), session.client.get_data(&path)).await {
            Ok((data, stat)) => {
                let token = FencingToken::new(stat.czxid.unsigned_abs());
                let data = String::from_utf8_lossy(&data);
                let (revoked, client_info) = split_revoked(&data);
                let holder = Holder::new(queue::owner(&node.name), token, session.timeout)
                    .with_resting(false)
                    .with_mode(node.mode())
                    .with_client_info(ClientInfo::parse(client_info))
                    .with_revoked(revoked || data == CURATORS_REVOKED);
                Ok(Some(holder))
            }
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Writes to the holders' nodes. At its next renewal a dlock holder finds another version of its node, and a Curator
    /// client that made its lock revocable is notified.
    pub(super) async fn revoke_holds(&self, key: &LockKey) -> Result<bool, BackendError> {
        let session = self.session().await?;
        let folder = queue::folder(&self.0.ensemble.root, key);
        let mut held = false;
        for node in self.holders(&session, &folder).await? {
            let Some(holder) = self.holder(&session, &folder, &node).await? else { continue };
            held = true;
            if holder.revoked {
                continue;
            }
            let data = match holder.client_info {
                Some(client_info) => mark_revoked(&client_info.to_text()),
                None => CURATORS_REVOKED.to_owned(),
            };
            let path = format!("{folder}/{}", node.name);
            let write = session.client.set_data(&path, data.as_bytes(), None);
            match session.write(Moment::now(), write).await {
                Ok(_) | Err(Error::NoNode) => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(held)
    }

    pub(super) async fn holder_of(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let session = self.session().await?;
        let folder = queue::folder(&self.0.ensemble.root, key);
        let Some(head) = self.holders(&session, &folder).await?.into_iter().next() else {
            return Ok(None);
        };
        self.holder(&session, &folder, &head).await
    }

    pub(super) async fn delete_holds(&self, key: &LockKey) -> Result<bool, BackendError> {
        let session = self.session().await?;
        let folder = queue::folder(&self.0.ensemble.root, key);
        let mut held = false;
        for node in self.holders(&session, &folder).await? {
            let path = format!("{folder}/{}", node.name);
            match session.write(Moment::now(), session.client.delete(&path, None)).await {
                Ok(()) => held = true,
                Err(Error::NoNode) => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(held)
    }
}
