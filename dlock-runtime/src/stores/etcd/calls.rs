//! The requests to the cluster, each with its timeout and with its answer in this crate's types.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, Event, EventType, GetOptions, GetResponse, KeyValue,
    LeaseGrantOptions, PutOptions, ResponseHeader, SortOrder, SortTarget, Txn, TxnOp, TxnResponse,
    WatchFilterType, WatchOptions,
};

use super::failure::{code, explain, is_of_transport, is_unknown_login, is_unreachable, status};
use super::login::Login;
use super::names::{mode, mode_in};
use crate::backend::Mode;
use crate::error::BackendError;
use crate::stores::shared::in_flight_limit::InFlightLimit;
use crate::stores::shared::node_queue::InQueue;
use crate::stores::shared::outage::{Failure, Outage};

pub(super) struct Calls {
    pub(super) client: Client,
    /// Hosts and ports, for messages.
    pub(super) hosts: String,
    /// How long the cluster may take to answer one request.
    pub(super) limit: Duration,
    pub(super) login: Arc<Login>,
    pub(super) outage: Outage,
    /// For acquires and releases.
    pub(super) room: InFlightLimit,
}

/// A claim's own key in its queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OwnKey {
    pub(super) revision: i64,
    pub(super) is_first: bool,
}

/// A deletion that a waiter watches for.
pub(super) enum Awaited {
    Key(Vec<u8>),
    /// The deletion of any key with this prefix.
    AnyOf(Vec<u8>),
}

/// The key of a holder or a waiter.
pub(super) struct QueueKey {
    pub(super) key: Vec<u8>,
    pub(super) mode: Mode,
}

/// The key of a holder or a waiter, with all that is stored of it.
pub(super) struct Stored {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) revision: i64,
    pub(super) lease: i64,
}

impl InQueue for QueueKey {
    fn mode(&self) -> Mode {
        self.mode
    }
}

impl InQueue for Stored {
    fn mode(&self) -> Mode {
        mode(&self.key)
    }
}

/// The outcome of keeping a lease alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Kept,
    Gone,
}

impl Calls {
    /// Sends a request, and repeats it while it provably was not executed: when a server cannot be reached (another
    /// one is asked next), and once when the servers forgot the login.
    async fn ask<T, F>(
        &self,
        mut request: impl FnMut() -> F,
    ) -> Result<Result<T, Error>, BackendError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.outage.admit()?;
        let mut tries = self.tries();
        let mut may_log_in = self.login.has_credentials();
        loop {
            let login = self.login.number();
            match self.in_time(request()).await? {
                Err(error) if tries > 1 && is_unreachable(&error) => tries -= 1,
                Err(error) if may_log_in && is_unknown_login(&error) => {
                    may_log_in = false;
                    self.login.again(login).await?;
                }
                answer => {
                    self.note(&answer);
                    return Ok(answer);
                }
            }
        }
    }

    async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, BackendError> {
        tokio::time::timeout(self.limit, request).await.map_err(|_| {
            BackendError::transient(format!("etcd at {} did not answer in time", self.hosts))
        })
    }

    /// Notes whether a server answered.
    fn note<T>(&self, answer: &Result<T, Error>) {
        match answer {
            Err(error) if is_of_transport(error) => {
                // Requests that the outage rejects are never sent.
                let failure = explain(&self.hosts, "could not be reached", error).not_sent();
                self.outage.failed(&Failure::from(&failure));
            }
            Ok(_) | Err(_) => self.outage.over(),
        }
    }

    /// How often a request is sent at most while servers cannot be reached. The client picks a server at random, and
    /// may pick the same one several times in a row.
    fn tries(&self) -> usize {
        match self.hosts.split(',').count() {
            1 => 1,
            several => several * 4,
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.hosts.contains(',')
    }

    pub(super) fn failed(&self, error: Error) -> BackendError {
        explain(&self.hosts, "failed", &error).with_source(error)
    }

    pub(super) fn lapsed(&self) -> BackendError {
        BackendError::transient(format!(
            "etcd at {}: the position in the queue expired or was removed by another client",
            self.hosts
        ))
    }

    /// Grants a lease. The answer is false if a lease with this id exists.
    pub(super) async fn grant(&self, lease: i64, seconds: i64) -> Result<bool, BackendError> {
        let answer = self.ask(|| {
            let mut client = self.client.lease_client();
            let options = LeaseGrantOptions::new().with_id(lease);
            async move { client.grant(seconds, Some(options)).await }
        });
        match answer.await? {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(code::FAILED_PRECONDITION) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    pub(super) async fn keep_alive(&self, lease: i64) -> Result<Kept, BackendError> {
        let answer = self.ask(|| {
            let mut client = self.client.lease_client();
            async move { client.keep_alive(lease).await }
        });
        match answer.await? {
            Ok(_) => Ok(Kept::Kept),
            Err(Error::LeaseKeepAliveError(_)) => Ok(Kept::Gone),
            Err(error) if status(&error) == Some(code::NOT_FOUND) => Ok(Kept::Gone),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Ends a lease, and deletes the keys under it.
    pub(super) async fn revoke(&self, lease: i64) -> Result<(), BackendError> {
        let answer = self.ask(|| {
            let mut client = self.client.lease_client();
            async move { client.revoke(lease).await }
        });
        match answer.await? {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(code::NOT_FOUND) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The granted ttl of a lease, and the time that is left of it.
    pub(super) async fn times(&self, lease: i64) -> Result<[Duration; 2], BackendError> {
        let answer = self.ask(|| {
            let mut client = self.client.lease_client();
            async move { client.time_to_live(lease, None).await }
        });
        match answer.await? {
            Ok(answer) => Ok([answer.granted_ttl(), answer.ttl()]
                .map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The key right before this revision, and the revision of the store at which it was read.
    pub(super) async fn predecessor(
        &self,
        queue: &str,
        revision: i64,
    ) -> Result<Option<(Vec<u8>, i64)>, BackendError> {
        let before = one_of_queue(SortOrder::Descend).with_max_create_revision(revision - 1);
        let mut answer = self.get(queue, Some(before)).await?;
        let read_at = answer.header().map_or(0, ResponseHeader::revision);
        let key = answer.take_kvs().into_iter().next().map(|pair| pair.key().to_vec());
        Ok(key.map(|key| (key, read_at)))
    }

    /// All keys of a queue before this revision, in its order, and the revision of the store at which they were read.
    pub(super) async fn before(
        &self,
        queue: &str,
        revision: i64,
    ) -> Result<(Vec<QueueKey>, i64), BackendError> {
        let before = whole_queue().with_keys_only().with_max_create_revision(revision - 1);
        let mut answer = self.get(queue, Some(before)).await?;
        let read_at = answer.header().map_or(0, ResponseHeader::revision);
        let keys = answer
            .take_kvs()
            .into_iter()
            .map(|pair| QueueKey { mode: mode_in(queue, pair.key()), key: pair.key().to_vec() });
        Ok((keys.collect(), read_at))
    }

    /// Resolves when an awaited key is deleted after this revision.
    pub(super) async fn until_deleted(
        &self,
        awaited: Awaited,
        revision: i64,
    ) -> Result<(), BackendError> {
        let options = WatchOptions::new()
            .with_start_revision(revision + 1)
            .with_filters([WatchFilterType::NoPut]);
        let (key, options) = match awaited {
            Awaited::Key(key) => (key, options),
            Awaited::AnyOf(prefix) => (prefix, options.with_prefix()),
        };
        let watching = self.ask(|| {
            let mut client = self.client.watch_client();
            let (key, options) = (key.clone(), options.clone());
            async move { client.watch(key, Some(options)).await }
        });
        let mut answers = watching.await?.map_err(|error| self.failed(error))?;
        let is_deletion = |event: &Event| event.event_type() == EventType::Delete;
        loop {
            match answers.message().await.map_err(|error| self.failed(error))? {
                Some(answer) if answer.canceled() => break,
                Some(answer) if answer.events().iter().any(is_deletion) => return Ok(()),
                Some(_) => {}
                None => break,
            }
        }
        Err(BackendError::transient(format!("etcd at {} ended a watch", self.hosts)))
    }

    /// One key.
    pub(super) async fn one(&self, key: &str) -> Result<Option<Stored>, BackendError> {
        Ok(self.stored(key, GetOptions::new()).await?.into_iter().next())
    }

    /// Deletes a key if it has this value.
    pub(super) async fn delete_own(&self, own: &str, value: &str) -> Result<bool, BackendError> {
        self.if_unchanged(own, value, TxnOp::delete(own, None)).await
    }

    /// If a key has this value, replaces it by the other one, under this lease.
    pub(super) async fn replace_own(
        &self,
        own: &str,
        value: &str,
        other: &str,
        lease: i64,
    ) -> Result<bool, BackendError> {
        let put = TxnOp::put(own, other, Some(PutOptions::new().with_lease(lease)));
        self.if_unchanged(own, value, put).await
    }

    async fn if_unchanged(
        &self,
        own: &str,
        value: &str,
        change: TxnOp,
    ) -> Result<bool, BackendError> {
        let is_unchanged = Compare::value(own, CompareOp::Equal, value);
        let answer = self.transact(Txn::new().when([is_unchanged]).and_then([change])).await?;
        Ok(answer.map_err(|error| self.failed(error))?.succeeded())
    }

    /// The first key of a queue.
    pub(super) async fn head(&self, queue: &str) -> Result<Option<Stored>, BackendError> {
        Ok(self.stored(queue, one_of_queue(SortOrder::Ascend)).await?.into_iter().next())
    }

    /// All keys with this prefix, in the order in which they were created.
    pub(super) async fn all(&self, prefix: &str) -> Result<Vec<Stored>, BackendError> {
        self.stored(prefix, whole_queue()).await
    }

    async fn stored(&self, key: &str, which: GetOptions) -> Result<Vec<Stored>, BackendError> {
        let mut answer = self.get(key, Some(which)).await?;
        Ok(answer.take_kvs().into_iter().map(stored).collect())
    }

    /// Deletes a key. The answer is false if it did not exist.
    pub(super) async fn delete(&self, key: &[u8]) -> Result<bool, BackendError> {
        let answer = self.ask(|| {
            let mut client = self.client.kv_client();
            async move { client.delete(key, None).await }
        });
        Ok(answer.await?.map_err(|error| self.failed(error))?.deleted() > 0)
    }

    async fn get(&self, key: &str, which: Option<GetOptions>) -> Result<GetResponse, BackendError> {
        let answer = self.ask(|| {
            let mut client = self.client.kv_client();
            let which = which.clone();
            async move { client.get(key, which).await }
        });
        answer.await?.map_err(|error| self.failed(error))
    }

    pub(super) async fn transact(
        &self,
        transaction: Txn,
    ) -> Result<Result<TxnResponse, Error>, BackendError> {
        self.ask(|| {
            let mut client = self.client.kv_client();
            let transaction = transaction.clone();
            async move { client.txn(transaction).await }
        })
        .await
    }
}

pub(super) fn stored(pair: KeyValue) -> Stored {
    let (revision, lease) = (pair.create_revision(), pair.lease());
    let (key, value) = pair.into_key_value();
    Stored { key, value, revision, lease }
}

/// All keys of a queue, in the order in which they were created.
fn whole_queue() -> GetOptions {
    GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend)
}

/// The first key of a queue, or with the other order the last one.
pub(super) fn one_of_queue(order: SortOrder) -> GetOptions {
    GetOptions::new().with_prefix().with_sort(SortTarget::Create, order).with_limit(1)
}
