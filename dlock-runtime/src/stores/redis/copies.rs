//! Writes that count only when replicas have them.
//!
//! `WAIT` covers the earlier writes of its own connection, and blocks that connection meanwhile. Concurrent
//! writers therefore share one `WAIT`. It is sent when every script in flight on the connection has been
//! answered. Scripts that arrive meanwhile use the other connection, or share the next `WAIT`. A grant
//! counts only after a `WAIT` that was sent on the same connection, after the grant had been answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::{FromRedisValue, RedisResult, ScriptInvocation};
use tokio::sync::RwLock;

use super::failure::Failed;
use super::link::{Link, Session, invoke};
use crate::error::BackendError;

/// Connections for writes that need replicas: one accepts writes while the other waits.
pub(in crate::stores) struct CopiedWrites {
    lanes: [Arc<Lane>; 2],
}

struct Lane {
    link: Arc<Link>,
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
    pub(super) fn new(mut link: impl FnMut() -> Arc<Link>) -> Self {
        let mut lane =
            || Arc::new(Lane { link: link(), gate: RwLock::default(), next: Mutex::default() });
        Self { lanes: [lane(), lane()] }
    }

    /// Opens the connections.
    pub(super) async fn connect(&self) -> Result<(), BackendError> {
        let [one, other] = &self.lanes;
        let (one, other) = tokio::join!(one.link.session(), other.link.session());
        one.and(other).map(drop)
    }

    /// Runs a script. If it has written, the answer counts only when enough replicas have the write.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        asking: bool,
        replicas: u32,
        has_written: fn(&T) -> bool,
    ) -> Result<T, Failed> {
        let [one, other] = &self.lanes;
        let lane = if one.is_open() || !other.is_open() { one } else { other };
        lane.run(script, asking, replicas, has_written).await
    }
}

impl Lane {
    fn is_open(&self) -> bool {
        self.gate.try_read().is_ok()
    }

    async fn run<T: FromRedisValue>(
        self: &Arc<Self>,
        script: &ScriptInvocation<'_>,
        asking: bool,
        replicas: u32,
        has_written: fn(&T) -> bool,
    ) -> Result<T, Failed> {
        let Session { generation, mut connection } = self.link.session().await?;
        let failed = |error| self.link.failed(generation, error);
        let (answer, wait) = {
            let _open = self.gate.read().await;
            let answer = invoke(&mut connection, script, asking).await.map_err(failed)?;
            if !has_written(&answer) {
                return Ok(answer);
            }
            (answer, self.join(Session { generation, connection }, replicas))
        };
        let have = wait.have.await.map_err(failed)?;
        if have < replicas {
            let address = self.link.address();
            let error = BackendError::transient(format!(
                "redis at {address}: only {have} of {replicas} replicas confirmed the lock in time"
            ));
            return Err(Failed { error, hint: super::failure::Hint::Nothing });
        }
        Ok(answer)
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
        let millis = u64::try_from(self.link.limits().response.as_millis() / 2).unwrap_or(u64::MAX);
        redis::cmd("WAIT").arg(replicas).arg(millis).query_async(&mut connection).await
    }
}
