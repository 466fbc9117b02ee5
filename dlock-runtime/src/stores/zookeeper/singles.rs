//! The create or the delete of one caller.
//!
//! An acquire is a create and a read of the queue, sent together: a session's requests are executed in order. A folder
//! that does not exist is created in one transaction with the first node in it, both or neither, because the servers never
//! remove a folder that never had a node. Nobody else is in the queue then, so it is not read.

use std::sync::{MutexGuard, PoisonError};

use futures_util::future::join;
use zookeeper_client::{CreateMode, Error, MultiWriteResult};

use super::batches::{Answer, Entered, Entry, RELEASED, Reply, Request};
use super::folders::Folders;
use super::session::Session;
use crate::clock::Moment;

/// How often a create is tried while the servers remove the folder at the same moment.
const TRIES: usize = 6;

impl Session {
    pub(super) fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn send(&self, request: &Request) -> Answer {
        match request {
            Request::Enter(entry) => self.enter(entry).await.map(Reply::Entered),
            Request::Leave(path) => {
                let deleted = self.write(Moment::now(), self.client.delete(path, None)).await;
                deleted.map(|()| Reply::Left)
            }
        }
    }

    async fn enter(&self, entry: &Entry) -> Result<Entered, Error> {
        for _ in 0..TRIES {
            let exists = self.folders().knows(&entry.folder);
            let entered = if exists {
                self.enter_folder(entry).await
            } else {
                self.enter_new_folder(entry).await
            };
            match entered {
                Err(Error::NoNode) if exists => self.folders().forget(&entry.folder),
                Err(Error::NodeExists) if !exists => self.folders().note(&entry.folder),
                Err(Error::NoNode) => {
                    let container = CreateMode::Container.with_acls(self.acls);
                    self.client.mkdir(&self.root, &container).await?;
                }
                Ok(entered) => {
                    self.folders().note(&entry.folder);
                    return Ok(entered);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::NoNode)
    }

    async fn enter_folder(&self, entry: &Entry) -> Result<Entered, Error> {
        let node = CreateMode::EphemeralSequential.with_acls(self.acls);
        let (sent, created, names) = {
            let _sending = self.sending();
            if entry.gate.is_closed() {
                return Err(RELEASED);
            }
            let sent = Moment::now();
            let created = self.client.create(&entry.prefix, entry.data.as_bytes(), &node);
            (sent, created, self.client.list_children(&entry.folder))
        };
        let (created, names) = join(self.write(sent, created), self.read(sent, names)).await;
        let (stat, sequence) = created?;
        // The server's counter has 32 bits.
        let unreadable =
            |_| Error::UnexpectedError("the sequence of a node is too large".to_owned());
        let sequence = i32::try_from(sequence.into_i64()).map_err(unreadable)?;
        let path = format!("{}{sequence:010}", entry.prefix);
        Ok(Entered { path, sequence, czxid: stat.czxid, names })
    }

    /// Fails with `NodeExists` if the folder exists, and with `NoNode` if the root does not.
    async fn enter_new_folder(&self, entry: &Entry) -> Result<Entered, Error> {
        let node = CreateMode::EphemeralSequential.with_acls(self.acls);
        let container = CreateMode::Container.with_acls(self.acls);
        let mut both = self.client.new_multi_writer();
        both.add_create(&entry.folder, &[], &container)?;
        both.add_create(&entry.prefix, entry.data.as_bytes(), &node)?;
        let (sent, committed) = {
            let _sending = self.sending();
            if entry.gate.is_closed() {
                return Err(RELEASED);
            }
            (Moment::now(), both.commit())
        };
        let committed = async { committed.await.map_err(Error::from) };
        let results = self.write(sent, committed).await?;
        let [MultiWriteResult::Create { stat, .. }, MultiWriteResult::Create { path, .. }] =
            &results[..]
        else {
            return Err(Error::UnexpectedError("the answer to a create has no path".to_owned()));
        };
        // Both have the same one.
        let czxid = if stat.is_invalid() {
            // The node exists, so no error of this read may look like a refusal of its create.
            let stat = self.read(Moment::now(), self.client.check_stat(path)).await;
            stat.map_err(|_| Error::ConnectionLoss)?.ok_or(Error::NoNode)?.czxid
        } else {
            stat.czxid
        };
        Entered::new(path.clone(), czxid, Ok(vec![path.clone()]))
    }
}
