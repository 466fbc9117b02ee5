//! The requests, each with its answer in this crate's words and within its time.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, EventType, GetOptions, KeyValue, LeaseGrantOptions,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchFilterType, WatchOptions,
};

use super::login::Login;
use crate::error::BackendError;
use crate::stores::shared::outage::{Failure, Outage};
use crate::stores::shared::room::Room;

/// The numbers of gRPC's status codes.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

pub(super) struct Calls {
    pub(super) client: Client,
    /// Hosts and ports: what messages show.
    pub(super) hosts: String,
    pub(super) limit: Duration,
    pub(super) login: Arc<Login>,
    pub(super) outage: Outage,
    /// Of acquires and releases.
    pub(super) room: Room,
}

/// A place in a queue.
pub(super) struct OwnKey {
    pub(super) revision: i64,
    pub(super) is_first: bool,
}

/// What is waited for.
pub(super) enum Awaited {
    /// The deletion of this key.
    Key(Vec<u8>),
    /// That of any key that begins so.
    AnyOf(Vec<u8>),
}

/// One who stands in a queue.
pub(super) struct Stored {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) revision: i64,
    pub(super) lease: i64,
}

/// What became of a lease that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Kept,
    Gone,
}

/// Sends a request, and again when it was surely not executed: one of the servers cannot be reached, and another
/// one is asked then; or our login was forgotten.
macro_rules! asked {
    ($calls:ident, $request:expr) => {{
        $calls.outage.admit()?;
        let mut tries = $calls.tries();
        let mut may_log_in = $calls.login.has_credentials();
        loop {
            let login = $calls.login.number();
            match $calls.in_time($request).await? {
                Err(error) if tries > 1 && is_unreachable(&error) => tries -= 1,
                Err(error) if may_log_in && is_unknown_login(&error) => {
                    may_log_in = false;
                    $calls.login.again(login).await?;
                }
                answer => {
                    $calls.note(&answer);
                    break answer;
                }
            }
        }
    }};
}

impl Calls {
    async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, BackendError> {
        tokio::time::timeout(self.limit, request).await.map_err(|_| {
            BackendError::transient(format!("etcd at {} did not answer in time", self.hosts))
        })
    }

    /// Is there a server that answers?
    fn note<T>(&self, answer: &Result<T, Error>) {
        match answer {
            Err(error) if is_of_transport(error) => {
                // Who is not let through has sent nothing.
                let failure = explain(&self.hosts, "could not be reached", error).not_sent();
                self.outage.failed(&Failure::from(&failure));
            }
            Ok(_) | Err(_) => self.outage.over(),
        }
    }

    /// The client picks a server at random, and may pick the one that is away several times in a row.
    fn tries(&self) -> usize {
        match self.hosts.split(',').count() {
            1 => 1,
            several => several * 4,
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.hosts.contains(',')
    }

    fn failed(&self, error: Error) -> BackendError {
        explain(&self.hosts, "failed", &error).with_source(error)
    }

    pub(super) fn lapsed(&self) -> BackendError {
        BackendError::transient(format!(
            "etcd at {}: the place in the queue has lapsed, or was removed by somebody else",
            self.hosts
        ))
    }

    /// Grants a lease; false if there is one of this number.
    pub(super) async fn grant(&self, lease: i64, seconds: i64) -> Result<bool, BackendError> {
        let options = LeaseGrantOptions::new().with_id(lease);
        let mut client = self.client.lease_client();
        match asked!(self, client.grant(seconds, Some(options.clone()))) {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(code::FAILED_PRECONDITION) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    pub(super) async fn keep_alive(&self, lease: i64) -> Result<Kept, BackendError> {
        let mut client = self.client.lease_client();
        match asked!(self, client.keep_alive(lease)) {
            Ok(_) => Ok(Kept::Kept),
            Err(Error::LeaseKeepAliveError(_)) => Ok(Kept::Gone),
            Err(error) if status(&error) == Some(code::NOT_FOUND) => Ok(Kept::Gone),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Ends a lease and what is under it.
    pub(super) async fn revoke(&self, lease: i64) -> Result<(), BackendError> {
        let mut client = self.client.lease_client();
        match asked!(self, client.revoke(lease)) {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(code::NOT_FOUND) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// How long a lease was granted for, and how long it still lasts.
    pub(super) async fn times(&self, lease: i64) -> Result<[Duration; 2], BackendError> {
        let mut client = self.client.lease_client();
        match asked!(self, client.time_to_live(lease, None)) {
            Ok(answer) => Ok([answer.granted_ttl(), answer.ttl()]
                .map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Puts a key under its lease if it is not there, and sees who is first.
    pub(super) async fn put_in_queue(
        &self,
        own: &str,
        owner: &str,
        lease: i64,
        queue: &str,
    ) -> Result<OwnKey, BackendError> {
        let first = || TxnOp::get(queue, Some(in_order(SortOrder::Ascend)));
        let put = TxnOp::put(own, owner, Some(PutOptions::new().with_lease(lease)));
        let transaction = Txn::new()
            .when([Compare::create_revision(own, CompareOp::Equal, 0)])
            .and_then([put, first()])
            .or_else([TxnOp::get(own, None), first()]);
        let mut client = self.client.kv_client();
        let answer = asked!(self, client.txn(transaction.clone()));
        let answer = match answer {
            // The lease was over before the key was put.
            Err(error) if status(&error) == Some(code::NOT_FOUND) => return Err(self.lapsed()),
            answer => answer.map_err(|error| self.failed(error))?,
        };
        let put_at = answer.header().map(etcd_client::ResponseHeader::revision);
        let mut parts = answer.op_responses().into_iter();
        let revision = match parts.next() {
            Some(TxnOpResponse::Get(own)) => own.kvs().first().map(KeyValue::create_revision),
            _ => put_at,
        };
        let head = match parts.next() {
            Some(TxnOpResponse::Get(head)) => head.kvs().first().map(KeyValue::create_revision),
            _ => None,
        };
        let revision = revision.ok_or_else(|| self.lapsed())?;
        Ok(OwnKey { revision, is_first: head == Some(revision) })
    }

    /// Who stands right before this revision, and at which revision of the store that was seen.
    pub(super) async fn predecessor(
        &self,
        queue: &str,
        revision: i64,
    ) -> Result<Option<(Vec<u8>, i64)>, BackendError> {
        let before = in_order(SortOrder::Descend).with_max_create_revision(revision - 1);
        let mut client = self.client.kv_client();
        let answer = asked!(self, client.get(queue, Some(before.clone())));
        let mut answer = answer.map_err(|error| self.failed(error))?;
        let seen_at = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let key = answer.take_kvs().into_iter().next().map(|pair| pair.key().to_vec());
        Ok(key.map(|key| (key, seen_at)))
    }

    /// All who stand before this revision, in their order, and at which revision of the store that was seen.
    pub(super) async fn before(
        &self,
        queue: &str,
        revision: i64,
    ) -> Result<(Vec<Vec<u8>>, i64), BackendError> {
        let before = GetOptions::new()
            .with_prefix()
            .with_keys_only()
            .with_sort(SortTarget::Create, SortOrder::Ascend)
            .with_max_create_revision(revision - 1);
        let mut client = self.client.kv_client();
        let answer = asked!(self, client.get(queue, Some(before.clone())));
        let mut answer = answer.map_err(|error| self.failed(error))?;
        let seen_at = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let keys = answer.take_kvs().into_iter().map(|pair| pair.key().to_vec());
        Ok((keys.collect(), seen_at))
    }

    /// Resolves when this key, or one of these, is deleted after this revision.
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
        let mut client = self.client.watch_client();
        let watching = asked!(self, client.watch(key.clone(), Some(options.clone())));
        let mut events = watching.map_err(|error| self.failed(error))?;
        loop {
            let told = events.message().await.map_err(|error| self.failed(error))?;
            match told {
                Some(told) if told.canceled() => break,
                Some(told) => {
                    let is_deletion =
                        |event: &etcd_client::Event| event.event_type() == EventType::Delete;
                    if told.events().iter().any(is_deletion) {
                        return Ok(());
                    }
                }
                None => break,
            }
        }
        Err(BackendError::transient(format!("etcd at {} ended a watch", self.hosts)))
    }

    /// What stands in a key.
    pub(super) async fn value(&self, key: &str) -> Result<Option<Vec<u8>>, BackendError> {
        let mut client = self.client.kv_client();
        let answer = asked!(self, client.get(key, None));
        let answer = answer.map_err(|error| self.failed(error))?;
        Ok(answer.kvs().first().map(|pair| pair.value().to_vec()))
    }

    /// Deletes a key if it is as its owner put it.
    pub(super) async fn delete_own(&self, own: &str, value: &str) -> Result<bool, BackendError> {
        self.if_own(own, value, TxnOp::delete(own, None)).await
    }

    /// Puts something else, under this lease, where a key is as its owner put it.
    pub(super) async fn replace_own(
        &self,
        own: &str,
        value: &str,
        other: &str,
        lease: i64,
    ) -> Result<bool, BackendError> {
        let put = TxnOp::put(own, other, Some(PutOptions::new().with_lease(lease)));
        self.if_own(own, value, put).await
    }

    async fn if_own(&self, own: &str, value: &str, change: TxnOp) -> Result<bool, BackendError> {
        let is_own = Compare::value(own, CompareOp::Equal, value);
        let mut client = self.client.kv_client();
        let transaction = Txn::new().when([is_own]).and_then([change]);
        let answer = asked!(self, client.txn(transaction.clone()));
        Ok(answer.map_err(|error| self.failed(error))?.succeeded())
    }

    pub(super) async fn head(&self, queue: &str) -> Result<Option<Stored>, BackendError> {
        Ok(self.stored(queue, in_order(SortOrder::Ascend)).await?.into_iter().next())
    }

    /// All whose names begin so, in the order in which they came.
    pub(super) async fn all(&self, prefix: &str) -> Result<Vec<Stored>, BackendError> {
        let in_order =
            GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
        self.stored(prefix, in_order).await
    }

    async fn stored(&self, key: &str, which: GetOptions) -> Result<Vec<Stored>, BackendError> {
        let mut client = self.client.kv_client();
        let answer = asked!(self, client.get(key, Some(which.clone())));
        let mut answer = answer.map_err(|error| self.failed(error))?;
        let stored = answer.take_kvs().into_iter().map(|pair| Stored {
            key: pair.key().to_vec(),
            value: pair.value().to_vec(),
            revision: pair.create_revision(),
            lease: pair.lease(),
        });
        Ok(stored.collect())
    }

    /// Deletes a key; false if it was not there.
    pub(super) async fn delete(&self, key: Vec<u8>) -> Result<bool, BackendError> {
        let mut client = self.client.kv_client();
        let answer = asked!(self, client.delete(key.clone(), None));
        Ok(answer.map_err(|error| self.failed(error))?.deleted() > 0)
    }
}

/// The first one of a queue, in this order of arrival.
fn in_order(order: SortOrder) -> GetOptions {
    GetOptions::new().with_prefix().with_sort(SortTarget::Create, order).with_limit(1)
}

fn status(error: &Error) -> Option<i32> {
    match error {
        Error::GRpcStatus(status) => Some(status.code() as i32),
        _ => None,
    }
}

/// Was there no connection to send it over?
fn is_unreachable(error: &Error) -> bool {
    status(error) == Some(code::UNAVAILABLE) && told(error).contains("connect error")
}

/// Is it no server's answer? A connection was not made, or broke.
fn is_of_transport(error: &Error) -> bool {
    match error {
        // What a server says has no other error underneath.
        Error::GRpcStatus(status) => std::error::Error::source(status).is_some(),
        Error::TransportError(_) | Error::IoError(_) => true,
        _ => false,
    }
}

/// Has the server forgotten our login, or is it older than the last change of users and roles? It has done nothing
/// then.
fn is_unknown_login(error: &Error) -> bool {
    status(error) == Some(code::UNAUTHENTICATED)
        || ["invalid auth token", "revision of auth store is old"]
            .iter()
            .any(|words| told(error).contains(words))
}

/// Is it of no use to ask again?
pub(super) fn is_lasting(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(_) => {
            let refused = matches!(
                status(error),
                Some(code::INVALID_ARGUMENT | code::PERMISSION_DENIED | code::UNIMPLEMENTED)
            );
            refused && !is_unknown_login(error)
        }
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => true,
        _ => false,
    }
}

pub(super) fn explain(hosts: &str, what: &str, error: &Error) -> BackendError {
    let message = format!("etcd at {hosts} {what}: {}", told(error));
    if is_lasting(error) {
        BackendError::permanent(message)
    } else {
        BackendError::transient(message)
    }
}

/// The server's own words; a status shows much else.
fn told(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    }
}
