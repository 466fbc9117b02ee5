//! One of the nodes: a Redis server of its own.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use redis::{FromRedisValue, ScriptInvocation};

use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::redis::link::{Link, Session};
use crate::stores::redis::scripts::{self, Greeting};
use crate::stores::redis::server::{Lane, Server};
use crate::stores::redis::servers::Servers;
use crate::stores::redis::subscriptions::{ChannelWatch, Subscriptions};

/// What the nodes have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// Where a node's mark is stored.
    pub(super) mark: String,
    /// How far clocks may be apart.
    pub(super) tolerance: Duration,
    /// How long a node that may have forgotten something counts for nothing: the longest that anybody
    /// has asked for, in milliseconds.
    quarantine: AtomicU64,
}

impl Common {
    pub(super) fn new(mark: String, tolerance: Duration, quarantine: Duration) -> Self {
        let quarantine = u64::try_from(quarantine.as_millis()).unwrap_or(u64::MAX);
        Self { mark, tolerance, quarantine: quarantine.into() }
    }

    fn quarantine(&self) -> Duration {
        Duration::from_millis(self.quarantine.load(Ordering::Relaxed))
    }
}

/// A node.
pub(super) struct Node {
    server: Arc<Server>,
    subscriptions: Subscriptions,
    common: Arc<Common>,
    /// Over the connection for acquires, and over that for all else.
    greeted: Mutex<[Option<Greeted>; 2]>,
    owed: Mutex<VecDeque<Owed>>,
}

/// How many requests a node may owe; the oldest are forgotten then.
const MOST_OWED: usize = 1_024;

/// A request that the node has not answered, and is sent again when it can be reached.
struct Owed {
    until: Instant,
    call: Box<dyn FnOnce(&str) -> ScriptInvocation<'static> + Send>,
}

/// Which run of the server a connection leads to. A server that is restarted ends the connection.
#[derive(Clone)]
struct Greeted {
    generation: u64,
    run: Arc<str>,
}

/// How a node takes a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeState {
    /// It has no mark: nothing was stored there, or all was lost.
    Unmarked,
    Counts,
    /// It may have forgotten something, and counts after this time.
    Quarantined(Duration),
}

impl Node {
    pub(super) fn new(server: Server, common: Arc<Common>) -> Self {
        let server = Arc::new(server);
        let subscriptions = Subscriptions::new(Servers::One(Arc::clone(&server)));
        Self { server, subscriptions, common, greeted: Mutex::default(), owed: Mutex::default() }
    }

    /// Its host and port.
    pub(super) fn address(&self) -> &str {
        self.server.address()
    }

    /// Runs a script that is told which run of the server it is for.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        lane: Lane,
        call: impl FnOnce(&str) -> ScriptInvocation<'static>,
    ) -> Result<T, BackendError> {
        // The script itself is not sent before this has succeeded.
        let (session, run) = self.greeted_session(lane).await.map_err(BackendError::not_sent)?;
        self.server.lane(lane).run_in(session, &call(&run)).await
    }

    /// A connection, and the run of the server that it leads to.
    async fn greeted_session(&self, lane: Lane) -> Result<(Session, Arc<str>), BackendError> {
        let session = self.server.lane(lane).session().await?;
        let known = self.greeted()[place(lane)].clone();
        let run = match known.filter(|known| known.generation == session.generation) {
            Some(known) => known.run,
            None => self.enter(lane, &session, Greeting::Enter).await?.0,
        };
        Ok((session, run))
    }

    /// Greets the node at the start.
    pub(super) async fn greet(&self, greeting: Greeting) -> Result<NodeState, BackendError> {
        let acquires = self.server.lane(Lane::Acquire);
        let (session, acquires) = tokio::join!(self.server.link().session(), acquires.session());
        let session = session?;
        if greeting == Greeting::Look {
            return Ok(self.ask(&session, greeting).await?.1);
        }
        let (run, standing) = self.enter(Lane::Keep, &session, greeting).await?;
        // It was made before the greeting: it leads to the run that was greeted, or nowhere.
        if let Ok(Session { generation, .. }) = acquires {
            self.greeted()[place(Lane::Acquire)] = Some(Greeted { generation, run });
        }
        Ok(standing)
    }

    /// It has no valid mark any more: it was emptied. It is greeted again before the next request.
    pub(super) fn forget_greeting(&self) {
        *self.greeted() = [None, None];
    }

    async fn enter(
        &self,
        lane: Lane,
        session: &Session,
        greeting: Greeting,
    ) -> Result<(Arc<str>, NodeState), BackendError> {
        let (run, standing) = self.ask(session, greeting).await?;
        let new = Greeted { generation: session.generation, run: Arc::clone(&run) };
        let (is_known, before) = {
            let mut greeted = self.greeted();
            let is_known = greeted.iter().flatten().any(|known| known.run == run);
            (is_known, greeted[place(lane)].replace(new))
        };
        if let NodeState::Quarantined(left) = standing
            && !is_known
        {
            tracing::warn!(
                target: "dlock",
                node = self.address(),
                counts_in = ?left,
                "this redis node was restarted or emptied, or is new: until every lease and token that it may have forgotten is over, it counts towards no majority"
            );
        }
        if lane == Lane::Keep {
            let owed = std::mem::take(&mut *self.owed());
            // What another run had not executed yet has gone with it.
            if before.is_some_and(|before| before.run == run) && !owed.is_empty() {
                let link = Arc::clone(self.server.link());
                tokio::spawn(settle(link, session.clone(), Arc::clone(&run), owed));
            }
        }
        Ok((run, standing))
    }

    /// Notes a request that was not answered, to be sent again over the next connection.
    pub(super) fn owe(
        &self,
        lasts: Duration,
        call: impl FnOnce(&str) -> ScriptInvocation<'static> + Send + 'static,
    ) {
        let mut owed = self.owed();
        if owed.len() == MOST_OWED {
            owed.pop_front();
        }
        owed.push_back(Owed { until: Instant::now() + lasts, call: Box::new(call) });
    }

    fn owed(&self) -> MutexGuard<'_, VecDeque<Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(
        &self,
        session: &Session,
        greeting: Greeting,
    ) -> Result<(Arc<str>, NodeState), BackendError> {
        let call = scripts::greet(&self.common.mark, self.common.quarantine(), greeting);
        let (run, left, longest, clock): (String, i64, u64, u64) =
            self.server.link().run_in(session.clone(), &call).await?;
        self.common.quarantine.fetch_max(longest, Ordering::Relaxed);
        self.check_clock(Duration::from_millis(clock));
        let standing = match left {
            ..0 => NodeState::Unmarked,
            0 => NodeState::Counts,
            left => NodeState::Quarantined(Duration::from_millis(left.unsigned_abs())),
        };
        Ok((run.into(), standing))
    }

    fn check_clock(&self, clock: Duration) {
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let apart = here.abs_diff(clock);
        if apart > self.common.tolerance {
            tracing::warn!(
                target: "dlock",
                node = self.address(),
                ?apart,
                "the clocks of this redis node and of this machine are too far apart: set them"
            );
        }
    }

    fn greeted(&self) -> MutexGuard<'_, [Option<Greeted>; 2]> {
        self.greeted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of locks that begin so.
    pub(super) async fn keys(
        &self,
        prefix: &str,
        key_prefix: &str,
    ) -> Result<BTreeSet<LockKey>, BackendError> {
        self.server.keys(prefix, key_prefix).await
    }

    pub(super) async fn watch(&self, channel: String) -> Result<ChannelWatch, BackendError> {
        self.subscriptions.watch(channel).await
    }

    pub(super) async fn refuse_eviction(&self) -> Result<(), BackendError> {
        self.server.refuse_eviction().await
    }
}

const fn place(lane: Lane) -> usize {
    match lane {
        Lane::Acquire => 0,
        Lane::Keep => 1,
    }
}

/// Sends what is owed, as long as the connection lasts.
async fn settle(link: Arc<Link>, session: Session, run: Arc<str>, owed: VecDeque<Owed>) {
    for Owed { until, call } in owed {
        if until > Instant::now() {
            let sent = link.run_in::<u8>(session.clone(), &call(&run)).await;
            if sent.is_err() {
                return;
            }
        }
    }
}
