//! One `multi` that creates and deletes the nodes of many callers, and the read of their queues.
//!
//! The read is sent together with the transaction: a session's requests are executed in order. Nobody else is in the
//! queue of a folder that this very transaction created, so it is not read.
//!
//! Servers up to 3.8 do not return the `czxid` of nodes that a transaction creates, except that of a container
//! ([ZOOKEEPER-4026]). All nodes of a transaction have the same one. A transaction that needs no container creates one
//! and removes it again, which nobody sees.
//!
//! [ZOOKEEPER-4026]: https://issues.apache.org/jira/browse/ZOOKEEPER-4026

use futures_util::future::{join, join_all};
use zookeeper_client::{CreateMode, Error, MultiReadResult, MultiWriteError, MultiWriteResult};

use super::batches::{Answer, Entered, Entry, RELEASED, Reply, Request};
use super::session::Session;
use crate::clock::Moment;

/// The name of the container that shows the `czxid`. No key has such a folder.
const PROBE: &str = "%czxid";

/// What one operation of a transaction is for. The number is that of the request.
enum Part {
    /// Creates a folder, or the container that shows the `czxid`.
    Container,
    Node {
        at: usize,
        in_new_folder: bool,
    },
    Deletion(usize),
    /// Removes the container that showed the `czxid`.
    Removal,
}

/// A transaction that was sent.
struct Sent<Written, Read> {
    at: Moment,
    parts: Vec<Part>,
    written: Written,
    /// The read of the queues whose folders are not new, if there are any.
    read: Option<Read>,
}

type Written = Result<Vec<MultiWriteResult>, MultiWriteError>;
type Read = Result<Vec<MultiReadResult>, Error>;

impl Session {
    /// Executes some of these requests, at least one, in one transaction.
    pub(super) async fn transact(
        &self,
        requests: &[Request],
        which: &[usize],
    ) -> Result<Vec<(usize, Answer)>, Error> {
        let Sent { at: sent, parts, written, read } = self.start(requests, which)?;
        let written = async { written.await.map_err(Error::from) };
        let read = async {
            match read {
                Some(read) => self.read(sent, read).await,
                None => Ok(vec![]),
            }
        };
        let (results, read) = join(self.write(sent, written), read).await;
        let results = results?;
        if !are_the_results_of(&parts, &results) {
            return Err(Error::UnexpectedError(
                "the answer to a transaction is incomplete".to_owned(),
            ));
        }
        let czxid = results.iter().find_map(|result| match result {
            MultiWriteResult::Create { stat, .. } if !stat.is_invalid() => Some(stat.czxid),
            _ => None,
        });
        let mut names = Names::of(read);
        let answers = parts.into_iter().zip(results).filter_map(|(part, result)| {
            let (at, node) = match (part, result) {
                (Part::Node { at, in_new_folder }, MultiWriteResult::Create { path, .. }) => {
                    let names = if in_new_folder { Ok(vec![path.clone()]) } else { names.next() };
                    (at, Some((path, names)))
                }
                (Part::Deletion(at), _) => (at, None),
                _ => return None,
            };
            Some(async move {
                match (&requests[at], node) {
                    (Request::Enter(entry), Some((path, names))) => {
                        let entered = self.complete(entry, path, czxid, names).await;
                        (at, entered.map(Reply::Entered))
                    }
                    _ => (at, Ok(Reply::Left)),
                }
            })
        });
        Ok(join_all(answers).await)
    }

    /// Sends a transaction, and the read of the queues right behind it.
    fn start(
        &self,
        requests: &[Request],
        which: &[usize],
    ) -> Result<Sent<impl Future<Output = Written>, impl Future<Output = Read>>, Error> {
        let node = CreateMode::EphemeralSequential.with_acls(self.acls);
        let container = CreateMode::Container.with_acls(self.acls);
        let mut writer = self.client.new_multi_writer();
        let mut reader = self.client.new_multi_reader();
        let (mut parts, mut reads, mut shows_czxid) = (vec![], false, false);
        let _sending = self.sending();
        for &at in which {
            match &requests[at] {
                // Nothing is sent then. Those that are still wanted are sent by themselves.
                Request::Enter(entry) if entry.gate.is_closed() => return Err(RELEASED),
                Request::Enter(entry) => {
                    let in_new_folder = !self.folders().knows(&entry.folder);
                    if in_new_folder {
                        writer.add_create(&entry.folder, &[], &container)?;
                        parts.push(Part::Container);
                        shows_czxid = true;
                    } else {
                        reader.add_get_children(&entry.folder)?;
                        reads = true;
                    }
                    writer.add_create(&entry.prefix, entry.data.as_bytes(), &node)?;
                    parts.push(Part::Node { at, in_new_folder });
                }
                Request::Leave(path) => {
                    writer.add_delete(path, None)?;
                    parts.push(Part::Deletion(at));
                }
            }
        }
        if reads && !shows_czxid {
            let probe = format!("{}/{PROBE}", self.root);
            writer.add_create(&probe, &[], &container)?;
            writer.add_delete(&probe, None)?;
            parts.extend([Part::Container, Part::Removal]);
        }
        let at = Moment::now();
        let written = writer.commit();
        let read = reads.then(|| reader.commit());
        Ok(Sent { at, parts, written, read })
    }

    /// Asks for what the answers to the transaction and the read did not say.
    async fn complete(
        &self,
        entry: &Entry,
        path: String,
        czxid: Option<i64>,
        names: Result<Vec<String>, Error>,
    ) -> Result<Entered, Error> {
        self.folders().note(&entry.folder);
        let czxid = if let Some(czxid) = czxid {
            czxid
        } else {
            // The node exists, so no error of this read may look like a refusal of its create.
            let stat = self.read(Moment::now(), self.client.check_stat(&path)).await;
            stat.map_err(|_| Error::ConnectionLoss)?.ok_or(Error::NoNode)?.czxid
        };
        let names = match names {
            // Servers before 3.6 do not read several folders in one request.
            Err(Error::Unimplemented) => {
                self.read(Moment::now(), self.client.list_children(&entry.folder)).await
            }
            names => names,
        };
        Entered::new(path, czxid, names)
    }
}

/// Whether each part has its own result.
fn are_the_results_of(parts: &[Part], results: &[MultiWriteResult]) -> bool {
    let is_of = |(part, result): (&Part, &MultiWriteResult)| match part {
        Part::Container | Part::Node { .. } => matches!(result, MultiWriteResult::Create { .. }),
        Part::Deletion(_) | Part::Removal => matches!(result, MultiWriteResult::Delete),
    };
    parts.len() == results.len() && parts.iter().zip(results).all(is_of)
}

/// The names in folders, in the order in which they were read.
enum Names {
    Read(std::vec::IntoIter<MultiReadResult>),
    Failed(Error),
}

impl Names {
    fn of(read: Read) -> Self {
        match read {
            Ok(results) => Self::Read(results.into_iter()),
            Err(error) => Self::Failed(error),
        }
    }

    fn next(&mut self) -> Result<Vec<String>, Error> {
        match self {
            Self::Read(results) => match results.next() {
                Some(MultiReadResult::Children { children }) => Ok(children),
                Some(MultiReadResult::Error { err }) => Err(err),
                _ => Err(Error::UnexpectedError("a folder was not read".to_owned())),
            },
            Self::Failed(error) => Err(error.clone()),
        }
    }
}
