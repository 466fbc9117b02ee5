//! Creates and deletes of nodes: those of independent callers that are ready at the same moment go out in one request.
//!
//! # One transaction for many callers
//!
//! A `multi` is executed as a whole or not at all: see the module `transaction`. If the servers refuse one part of it,
//! nothing was executed, and each caller's request is sent again by itself: see the module `singles`. If the answer is
//! lost, nobody knows, and every caller has to find out.
//!
//! All nodes of a transaction have the same `czxid`, which is their fencing token. Two nodes of one queue are therefore
//! never created in the same transaction.
//!
//! # Cancellation
//!
//! The caller of a create may be gone when the create is sent, or sent again. Its [`Gate`] is closed by the release, under
//! the lock under which creates are sent. What the release reads later shows every node that was created.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{join, join_all};
use zookeeper_client::Error;

use super::queue;
use super::session::{Session, is_refusal};
use crate::error::BackendError;
use crate::stores::shared::batcher::Carrier;

/// How long a batch may take before the next one no longer waits for it.
const LIMIT: Duration = Duration::from_millis(500);

/// A create or a delete.
#[derive(Debug)]
pub(super) enum Request {
    Enter(Entry),
    /// Deletes the node with this path.
    Leave(String),
}

/// A node to create in a queue.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) folder: String,
    /// The path of the node without its sequence.
    pub(super) prefix: String,
    pub(super) data: String,
    pub(super) gate: Gate,
}

/// Whether a node may still be created.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<AtomicBool>);

#[derive(Debug)]
pub(super) enum Reply {
    Entered(Entered),
    Left,
}

/// A node that was created.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) path: String,
    pub(super) sequence: i32,
    pub(super) czxid: i64,
    /// The names in its folder, read after it was created.
    pub(super) names: Result<Vec<String>, Error>,
}

/// The answer to a create whose gate is closed. It was not sent.
pub(super) const RELEASED: Error = Error::BadArguments(&"the claim was released");

pub(super) type Answer = Result<Reply, Error>;

impl Gate {
    pub(super) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A session's connection.
pub(super) struct Wire(Weak<Session>);

impl Wire {
    pub(super) const fn new(session: Weak<Session>) -> Self {
        Self(session)
    }
}

impl Carrier for Wire {
    type Request = Request;
    type Answer = Answer;

    const MOST: usize = 128;
    /// The servers reject requests above 1 MiB.
    const MOST_BYTES: usize = 128 * 1024;
    /// A session executes its requests in order, so several may be on their way to a distant server.
    const ENOUGH: usize = 16;
    const MOST_IN_FLIGHT: usize = 4;

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn size(request: &Request) -> usize {
        match request {
            Request::Enter(entry) => entry.folder.len() * 2 + entry.prefix.len() + entry.data.len(),
            Request::Leave(path) => path.len(),
        }
    }

    async fn carry_one(&self, request: Request) -> Answer {
        let session = self.0.upgrade().ok_or(Error::ClientClosed)?;
        session.send(&request).await
    }

    async fn carry(&self, requests: Vec<Request>) -> Vec<Answer> {
        match self.0.upgrade() {
            Some(session) => session.send_all(&requests).await,
            None => requests.iter().map(|_| Err(Error::ClientClosed)).collect(),
        }
    }

    /// The runtime that sent it has ended: nobody knows whether it was sent.
    fn failed(_: BackendError) -> Answer {
        Err(Error::ConnectionLoss)
    }
}

impl Entered {
    pub(super) fn new(
        path: String,
        czxid: i64,
        names: Result<Vec<String>, Error>,
    ) -> Result<Self, Error> {
        let node = queue::parse(path.clone());
        let unreadable = || Error::UnexpectedError(format!("a node was created as {path}"));
        let sequence = node.ok_or_else(unreadable)?.sequence;
        Ok(Self { path, sequence, czxid, names })
    }
}

impl Session {
    pub(super) fn sending(&self) -> MutexGuard<'_, ()> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no create with this gate is sent.
    pub(super) fn close(&self, gate: &Gate) {
        let _sending = self.sending();
        gate.0.store(true, Ordering::Relaxed);
    }

    async fn send_all(&self, requests: &[Request]) -> Vec<Answer> {
        let (together, apart) = split(requests);
        let together = self.send_together(requests, together);
        let (mut answers, apart) = join(together, self.send_each(requests, apart)).await;
        answers.extend(apart);
        answers.sort_unstable_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn send_each(&self, requests: &[Request], which: Vec<usize>) -> Vec<(usize, Answer)> {
        let each = which.into_iter().map(|at| async move { (at, self.send(&requests[at]).await) });
        join_all(each).await
    }

    async fn send_together(&self, requests: &[Request], which: Vec<usize>) -> Vec<(usize, Answer)> {
        if which.len() < 2 {
            return self.send_each(requests, which).await;
        }
        match self.transact(requests, &which).await {
            Ok(answers) => answers,
            // Nothing was executed. By itself, each caller gets the answer to its own request.
            Err(error) if is_refusal(&error) => self.send_each(requests, which).await,
            Err(error) => which.into_iter().map(|at| (at, Err(error.clone()))).collect(),
        }
    }
}

/// Which requests can be parts of the same transaction, and which cannot.
fn split(requests: &[Request]) -> (Vec<usize>, Vec<usize>) {
    let mut folders = HashSet::new();
    (0..requests.len()).partition(|at| match &requests[*at] {
        Request::Enter(entry) => folders.insert(&*entry.folder),
        Request::Leave(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(folder: &str) -> Request {
        let [folder, prefix, data] = [folder, "", ""].map(str::to_owned);
        Request::Enter(Entry { folder, prefix, data, gate: Gate::default() })
    }

    #[test]
    fn two_nodes_of_one_queue_are_not_created_in_one_transaction() {
        let leave = || Request::Leave("/dlock/a/x".to_owned());
        let requests = [enter("/dlock/a"), leave(), enter("/dlock/b"), enter("/dlock/a"), leave()];
        assert_eq!(split(&requests), (vec![0, 1, 2, 4], vec![3]));
    }

    #[test]
    fn a_node_has_the_sequence_of_its_path() {
        let entered = |path: &str| Entered::new(path.to_owned(), 7, Ok(vec![]));
        assert_eq!(entered("/dlock/k/_c_x-lock-0000000012").unwrap().sequence, 12);
        assert_eq!(entered("/dlock/k/_c_x-lock--2147483648").unwrap().sequence, i32::MIN);
        assert!(entered("/dlock/k/other").is_err());
    }
}
