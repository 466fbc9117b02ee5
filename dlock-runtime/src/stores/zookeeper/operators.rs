//! For operators: who holds and who waits, and how a hold is ended from outside.

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
use crate::lock_table::queue::holders;
use crate::token::FencingToken;

/// What stands before the data of a node whose hold was revoked.
const REVOKED: char = '~';

/// What Curator's `Revoker` writes into such a node.
const CURATORS_REVOKED: &str = "__REVOKE__";

/// How many folders are opened at once.
const OPENED_AT_ONCE: usize = 32;

impl ZooKeeper {
    /// Who hold a key, as the whole ensemble knows it, the first one first.
    async fn holders(
        &self,
        session: &Session,
        folder: &str,
    ) -> Result<Vec<QueueNode>, BackendError> {
        Ok(hold(&self.queue(session, folder).await?))
    }

    /// Who stand in a folder's queue, as the whole ensemble knows it.
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
            Ok(names) => Ok(queue::in_order(queue::entries(names))),
            Err(Error::NoNode) => Ok(vec![]),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Opens the root and the folders there are to all credentials of this session, where one of them may do that.
    pub(super) async fn open_folders(&self, acls: &[Acl]) -> Result<(), BackendError> {
        let session = self.session().await?;
        let root = &self.0.root;
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
        let root = if self.0.root.is_empty() { "/" } else { &self.0.root };
        let client = &session.client;
        // A follower may not know yet of a folder that was made through another one.
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
        let folder = queue::folder(&self.0.root, &key);
        let entries = self.queue(session, &folder).await?;
        let holding = hold(&entries);
        let (mut holders, mut waiters) = (vec![], vec![]);
        for entry in entries {
            let Some(holder) = self.holder(session, &folder, &entry).await? else { continue };
            if holding.contains(&entry) {
                holders.push(holder);
            } else {
                waiters.push(Waiter::new(holder.owner, entry.mode, holder.client_info));
            }
        }
        Ok(LockState::new(key, holders, waiters))
    }

    /// Who stands there, taken for a holder; `None` if the node is gone.
    async fn holder(
        &self,
        session: &Session,
        folder: &str,
        entry: &QueueNode,
    ) -> Result<Option<Holder>, BackendError> {
        let path = format!("{folder}/{}", entry.name);
        match session.read(Moment::now(), session.client.get_data(&path)).await {
            Ok((data, stat)) => {
                let token = FencingToken::new(stat.czxid.unsigned_abs());
                let data = String::from_utf8_lossy(&data).into_owned();
                let holder = Holder::new(queue::owner(&entry.name), token, session.timeout)
                    .with_mode(entry.mode)
                    .with_client_info(ClientInfo::parse(data.trim_start_matches(REVOKED)))
                    .with_revoked(data == CURATORS_REVOKED || data.starts_with(REVOKED));
                Ok(Some(holder))
            }
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Writes to the holders' nodes: the next proof of a dlock finds another version, and a Curator client
    /// that made its lock revocable is told.
    pub(super) async fn revoke_holds(&self, key: &LockKey) -> Result<bool, BackendError> {
        let session = self.session().await?;
        let folder = queue::folder(&self.0.root, key);
        let mut held = false;
        for entry in self.holders(&session, &folder).await? {
            let Some(holder) = self.holder(&session, &folder, &entry).await? else { continue };
            held = true;
            if holder.revoked {
                continue;
            }
            let data = match holder.client_info {
                Some(client_info) => format!("{REVOKED}{}", client_info.to_text()),
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

    pub(super) async fn holder_of(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let session = self.session().await?;
        let folder = queue::folder(&self.0.root, key);
        let Some(head) = self.holders(&session, &folder).await?.into_iter().next() else {
            return Ok(None);
        };
        self.holder(&session, &folder, &head).await
    }

    pub(super) async fn delete_holds(&self, key: &LockKey) -> Result<bool, BackendError> {
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
fn hold(queue: &[QueueNode]) -> Vec<QueueNode> {
    holders(queue.iter().map(|entry| (entry.clone(), entry.mode)).collect())
}
