//! Puts, deletions and reads of keys: those of independent callers that are ready at the same moment go out in one
//! transaction.
//!
//! A transaction of transactions is executed as a whole, or refused as a whole: the end of one lease refuses the keys of
//! all. Nothing was executed then, and each caller's request is sent again by itself.
//!
//! All keys of a transaction have the same create revision, which is their fencing token and their position. Two keys of
//! one queue are therefore never put by the same transaction.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, PutOptions, ResponseHeader, SortOrder, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};
use futures_util::future::{join, join_all};

use super::calls::{Calls, OwnKey, Stored, one_of_queue, stored};
use super::failure::{code, is_refusal, status};
use crate::error::BackendError;
use crate::stores::shared::batcher::Carrier;

/// The most requests in one transaction. The servers admit 128 operations, those of one part and all parts together.
const MOST: usize = 64;

/// The servers reject requests above 1.5 MiB.
const MOST_BYTES: usize = 256 * 1024;

/// Several batches may be on their way to distant servers, each with so many requests.
const ENOUGH: usize = 16;
const MOST_IN_FLIGHT: usize = 4;

/// How long a batch may take before the next one no longer waits for it.
const LIMIT: Duration = Duration::from_millis(500);

/// When a key is put into its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// If it is not there.
    Missing,
    /// If no key is there.
    Empty,
}

/// A key to put into a queue under a lease.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) queue: String,
    pub(super) own: String,
    pub(super) value: String,
    pub(super) lease: i64,
    pub(super) when: When,
}

/// What became of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// The key is there, under this lease.
    In(OwnKey),
    /// The queue has other keys, so the key was not put.
    Out,
    /// The key is there under another lease.
    Otherwise,
    /// The lease has ended, so the key was not put.
    NoLease,
}

/// A key to delete if it has this value.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) own: String,
    pub(super) value: String,
    /// The lease under which it has to be, if it is known. A repeated claim may have put the key again under another
    /// one when this is executed.
    pub(super) lease: Option<i64>,
}

/// Carries the names of keys to read.
pub(super) struct Looks(pub(super) Arc<Calls>);

/// Carries entries.
pub(super) struct Entries(pub(super) Arc<Calls>);

/// Carries exits.
pub(super) struct Exits(pub(super) Arc<Calls>);

/// The answer to a part of a transaction.
struct Part {
    succeeded: bool,
    answers: Vec<TxnOpResponse>,
    /// The revision of the store after the whole transaction.
    revision: i64,
}

impl Carrier for Entries {
    type Request = Entry;
    type Answer = Result<Entered, BackendError>;

    const MOST: usize = MOST;
    const MOST_BYTES: usize = MOST_BYTES;
    const ENOUGH: usize = ENOUGH;
    const MOST_IN_FLIGHT: usize = MOST_IN_FLIGHT;

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn size(entry: &Entry) -> usize {
        entry.queue.len() * 4 + entry.own.len() * 3 + entry.value.len() + 64
    }

    async fn carry_one(&self, entry: Entry) -> Self::Answer {
        self.enter(&entry).await
    }

    async fn carry(&self, entries: Vec<Entry>) -> Vec<Self::Answer> {
        let (together, apart) = split(&entries);
        let each = |which: Vec<usize>| {
            let entries = &entries;
            join_all(
                which.into_iter().map(|at| async move { (at, self.enter(&entries[at]).await) }),
            )
        };
        let all = async {
            match self.0.transact_all(together.iter().map(|at| entries[*at].transaction())).await {
                Ok(Some(parts)) => {
                    let read = |(at, part): (usize, Part)| (at, Ok(entries[at].read(part)));
                    together.into_iter().zip(parts).map(read).collect()
                }
                Ok(None) => each(together).await,
                Err(error) => together.into_iter().map(|at| (at, Err(error.clone()))).collect(),
            }
        };
        let (mut answers, apart) = join(all, each(apart)).await;
        answers.extend(apart);
        answers.sort_unstable_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    fn failed(error: BackendError) -> Self::Answer {
        Err(error)
    }
}

impl Entries {
    async fn enter(&self, entry: &Entry) -> Result<Entered, BackendError> {
        match self.0.transact(entry.transaction()).await? {
            Ok(answer) => Ok(entry.read(Part::of(&answer))),
            Err(error) if status(&error) == Some(code::NOT_FOUND) => Ok(Entered::NoLease),
            Err(error) => Err(self.0.failed(error)),
        }
    }
}

impl Carrier for Exits {
    type Request = Exit;
    type Answer = Result<bool, BackendError>;

    const MOST: usize = MOST;
    const MOST_BYTES: usize = MOST_BYTES;
    const ENOUGH: usize = ENOUGH;
    const MOST_IN_FLIGHT: usize = MOST_IN_FLIGHT;

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn size(exit: &Exit) -> usize {
        exit.own.len() * 2 + exit.value.len() + 64
    }

    async fn carry_one(&self, exit: Exit) -> Self::Answer {
        let answer = self.0.transact(exit.transaction()).await?;
        Ok(answer.map_err(|error| self.0.failed(error))?.succeeded())
    }

    async fn carry(&self, exits: Vec<Exit>) -> Vec<Self::Answer> {
        match self.0.transact_all(exits.iter().map(Exit::transaction)).await {
            Ok(Some(parts)) => parts.into_iter().map(|part| Ok(part.succeeded)).collect(),
            Ok(None) => join_all(exits.into_iter().map(|exit| self.carry_one(exit))).await,
            Err(error) => exits.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn failed(error: BackendError) -> Self::Answer {
        Err(error)
    }
}

impl Carrier for Looks {
    type Request = String;
    type Answer = Result<Option<Stored>, BackendError>;

    const MOST: usize = MOST;
    const MOST_BYTES: usize = MOST_BYTES;
    const ENOUGH: usize = ENOUGH;
    const MOST_IN_FLIGHT: usize = MOST_IN_FLIGHT;

    /// A renewal does not wait long for others.
    fn limit(&self) -> Duration {
        LIMIT / 5
    }

    fn size(key: &String) -> usize {
        key.len() + 32
    }

    async fn carry_one(&self, key: String) -> Self::Answer {
        self.0.one(&key).await
    }

    async fn carry(&self, keys: Vec<String>) -> Vec<Self::Answer> {
        match self.0.all_of(&keys).await {
            Ok(Some(found)) => found.into_iter().map(Ok).collect(),
            Ok(None) => join_all(keys.into_iter().map(|key| self.carry_one(key))).await,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn failed(error: BackendError) -> Self::Answer {
        Err(error)
    }
}

impl Entry {
    fn transaction(&self) -> Txn {
        let Self { queue, own, value, lease, when } = self;
        let no_key = Compare::create_revision(own.as_str(), CompareOp::Equal, 0);
        // Of no keys at all, the servers compare the revision 0, too.
        let no_keys = Compare::create_revision(queue.as_str(), CompareOp::Equal, 0).with_prefix();
        let put =
            TxnOp::put(own.as_str(), value.as_str(), Some(PutOptions::new().with_lease(*lease)));
        let head = || {
            let first = one_of_queue(SortOrder::Ascend).with_keys_only();
            TxnOp::get(queue.as_str(), Some(first))
        };
        let found = TxnOp::get(own.as_str(), Some(GetOptions::new().with_keys_only()));
        match when {
            When::Missing => Txn::new().when([no_key]).and_then([put, head()]),
            When::Empty => Txn::new().when([no_keys]).and_then([put]),
        }
        .or_else([found, head()])
    }

    fn read(&self, part: Part) -> Entered {
        let Part { succeeded, answers, revision } = part;
        let mut answers = answers.into_iter().map(|answer| match answer {
            TxnOpResponse::Get(found) => first_of(&found),
            _ => None,
        });
        let (own, head) = (answers.next().flatten(), answers.next().flatten());
        match (succeeded, own) {
            (true, _) => {
                let is_first =
                    self.when == When::Empty || head.is_some_and(|(first, _)| first == revision);
                Entered::In(OwnKey { revision, is_first })
            }
            (false, Some((revision, lease))) if lease == self.lease => {
                let is_first = head.is_some_and(|(first, _)| first == revision);
                Entered::In(OwnKey { revision, is_first })
            }
            (false, Some(_)) => Entered::Otherwise,
            (false, None) => Entered::Out,
        }
    }
}

/// The create revision and the lease of the first key that was found.
fn first_of(found: &GetResponse) -> Option<(i64, i64)> {
    found.kvs().first().map(|pair| (pair.create_revision(), pair.lease()))
}

impl Exit {
    fn transaction(&self) -> Txn {
        let Self { own, value, lease } = self;
        let has_value = Compare::value(own.as_str(), CompareOp::Equal, value.as_str());
        let has_lease = lease.map(|lease| Compare::lease(own.as_str(), CompareOp::Equal, lease));
        let is_unchanged: Vec<_> = [has_value].into_iter().chain(has_lease).collect();
        Txn::new().when(is_unchanged).and_then([TxnOp::delete(own.as_str(), None)])
    }
}

impl Part {
    fn of(answer: &TxnResponse) -> Self {
        let revision = answer.header().map_or(0, ResponseHeader::revision);
        Self { succeeded: answer.succeeded(), answers: answer.op_responses(), revision }
    }
}

impl Calls {
    /// Executes transactions as one. `None` if the servers refused it, perhaps because of one of them.
    async fn transact_all(
        &self,
        parts: impl Iterator<Item = Txn>,
    ) -> Result<Option<Vec<Part>>, BackendError> {
        let parts = parts.map(TxnOp::txn).collect();
        self.execute(parts, |revision, answer| match answer {
            TxnOpResponse::Txn(part) => Some(Part { revision, ..Part::of(&part) }),
            _ => None,
        })
        .await
    }

    /// Reads several keys. `None` if the servers refused it, perhaps because of one of them.
    async fn all_of(&self, keys: &[String]) -> Result<Option<Vec<Option<Stored>>>, BackendError> {
        let reads = keys.iter().map(|key| TxnOp::get(key.as_str(), None)).collect();
        self.execute(reads, |_, answer| match answer {
            TxnOpResponse::Get(mut found) => Some(found.take_kvs().into_iter().next().map(stored)),
            _ => None,
        })
        .await
    }

    /// Executes these operations as one transaction, and reads the answer to each, given the revision of the store
    /// after all of them.
    async fn execute<T>(
        &self,
        operations: Vec<TxnOp>,
        read: impl Fn(i64, TxnOpResponse) -> Option<T>,
    ) -> Result<Option<Vec<T>>, BackendError> {
        let sent = operations.len();
        let answer = match self.transact(Txn::new().and_then(operations)).await? {
            Ok(answer) => answer,
            Err(error) if is_refusal(&error) => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let Part { answers, revision, .. } = Part::of(&answer);
        let read: Vec<_> =
            answers.into_iter().filter_map(|answer| read(revision, answer)).collect();
        if read.len() != sent {
            let problem =
                format!("etcd at {}: the answer to a transaction is incomplete", self.hosts);
            return Err(BackendError::transient(problem));
        }
        Ok(Some(read))
    }
}

/// Which entries can be parts of the same transaction, and which cannot.
fn split(entries: &[Entry]) -> (Vec<usize>, Vec<usize>) {
    let mut queues = HashSet::new();
    (0..entries.len()).partition(|at| queues.insert(&*entries[*at].queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_of_one_queue_are_not_put_by_one_transaction() {
        let entry = |queue: &str| {
            let [queue, own, value] = [queue, "", ""].map(str::to_owned);
            Entry { queue, own, value, lease: 1, when: When::Missing }
        };
        let entries = ["a/", "b/", "a/", "c/", "a/"].map(entry);
        assert_eq!(split(&entries), (vec![0, 1, 3], vec![2, 4]));
    }
}
