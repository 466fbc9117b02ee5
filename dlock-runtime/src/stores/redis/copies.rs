//! Writes that count only when replicas have them.
//!
//! `WAIT` covers the earlier writes of its own connection, and blocks that connection meanwhile. Concurrent
//! writers therefore share one `WAIT`. It is sent when every script in flight on the connection has been
//! answered. Scripts that arrive meanwhile use the other connection, or share the next `WAIT`. A grant
//! counts only after a `WAIT` that was sent on the same connection, after the grant had been answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::{RedisResult, Value};
use tokio::sync::RwLock;

use super::failure::{Failed, Hint};
use super::link::Session;
use super::requests::{Answer, Requests};
use super::step::Step;
use crate::error::BackendError;

/// What counts only when replicas have it.
#[derive(Clone, Copy)]
pub(in crate::stores) struct Copies {
    /// How many replicas must have it.
    pub(in crate::stores) replicas: u32,
    /// Whether this answer reports a write.
    pub(in crate::stores) has_written: fn(&Value) -> bool,
}

/// Connections for writes that need replicas: one accepts writes while the other waits.
pub(in crate::stores) struct CopiedWrites {
    lanes: [Arc<Lane>; 2],
}

struct Lane {
    requests: Requests,
    /// Scripts hold it for reading, the `WAIT` for writing.
    gate: RwLock<()>,
    /// The next `WAIT`, which is not sent yet.
    next: Mutex<Option<Wait>>,
}

#[derive(Clone)]
struct Wait {
    /// The connection whose writes it covers.
    generation: u64,
    have: Shared<BoxFuture<'static, RedisResult<u32>>>,
}

impl CopiedWrites {
    pub(super) fn new(mut requests: impl FnMut() -> Requests) -> Self {
        let mut lane = || {
            let (gate, next) = (RwLock::default(), Mutex::default());
            Arc::new(Lane { requests: requests(), gate, next })
        };
        Self { lanes: [lane(), lane()] }
    }

    /// Opens the connections.
    pub(super) async fn connect(&self) -> Result<(), BackendError> {
        let [one, other] = &self.lanes;
        let (one, other) =
            tokio::join!(one.requests.link().session(), other.requests.link().session());
        one.and(other).map(drop)
    }

    /// Sends a request. If it has written, the answer counts only when enough replicas have the write.
    pub(super) async fn send(&self, step: &Step, asking: bool, copies: Copies) -> Answer {
        let [one, other] = &self.lanes;
        let lane = if one.is_open() || !other.is_open() { one } else { other };
        lane.send(step, asking, copies).await
    }
}

impl Lane {
    fn is_open(&self) -> bool {
        self.gate.try_read().is_ok()
    }

    async fn send(self: &Arc<Self>, step: &Step, asking: bool, copies: Copies) -> Answer {
        let session = self.requests.link().session().await?;
        let generation = session.generation;
        let (answered, wait) = {
            let _open = self.gate.read().await;
            let answered = if asking {
                self.requests.ask_in(session.clone(), step).await?
            } else {
                self.requests.send_in(session.clone(), step).await?
            };
            if !(copies.has_written)(&answered.value) {
                return Ok(answered);
            }
            (answered, self.join(session, copies.replicas))
        };
        let link = self.requests.link();
        let have = wait.have.await.map_err(|error| link.failed(generation, error))?;
        if have < copies.replicas {
            let (address, replicas) = (link.address(), copies.replicas);
            let error = BackendError::transient(format!(
                "redis at {address}: only {have} of {replicas} replicas confirmed the lock in time"
            ));
            return Err(Failed { error, hint: Hint::Nothing, was_resent: false });
        }
        Ok(answered)
    }

    /// Joins the next `WAIT` of the connection, which is sent later than this.
    fn join(self: &Arc<Self>, session: Session, replicas: u32) -> Wait {
        let mut next = self.next();
        if let Some(wait) = next.as_ref().filter(|wait| wait.generation == session.generation) {
            return wait.clone();
        }
        let generation = session.generation;
        let task = tokio::spawn(Arc::clone(self).wait(session, replicas));
        let have = async move { task.await.unwrap_or_else(|_| Err(super::topology::late())) };
        next.insert(Wait { generation, have: have.boxed().shared() }).clone()
    }

    fn next(&self) -> MutexGuard<'_, Option<Wait>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(self: Arc<Self>, session: Session, replicas: u32) -> RedisResult<u32> {
        let Session { generation, mut connection } = session;
        let _closed = self.gate.write().await;
        // This `WAIT` does not cover writes from now on.
        self.next().take_if(|wait| wait.generation == generation);
        // Half the response timeout, so that its own answer arrives in time.
        let limit = self.requests.link().limits().response / 2;
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        redis::cmd("WAIT").arg(replicas).arg(millis).query_async(&mut connection).await
    }
}
