//! One of the nodes: an independent Redis server.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use redis::{FromRedisValue, Value};

use super::scripts::{self, Greeting};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::redis::link::Session;
use crate::stores::redis::requests::read;
use crate::stores::redis::server::{Lane, Server};
use crate::stores::redis::servers::Servers;
use crate::stores::redis::step::{Header, Mark, Step};
use crate::stores::redis::subscriptions::{ChannelWatch, Subscriptions};

/// What the nodes have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// Where a node's mark is stored.
    pub(super) mark: Arc<str>,
    /// How far clocks may differ.
    pub(super) tolerance: Duration,
    /// How long a node that may have forgotten something counts for nothing, in milliseconds: the longest
    /// time that any process has asked for.
    quarantine: AtomicU64,
}

impl Common {
    pub(super) fn new(mark: String, tolerance: Duration, quarantine: Duration) -> Self {
        let quarantine = u64::try_from(quarantine.as_millis()).unwrap_or(u64::MAX);
        Self { mark: mark.into(), tolerance, quarantine: quarantine.into() }
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
    /// The run that was greeted over the connection for acquires, and over that for all other requests.
    greeted: Mutex<[Option<Greeted>; 2]>,
    /// At most [`MOST_OWED`] requests.
    owed: Mutex<VecDeque<Owed>>,
}

/// The most requests that a node may owe. Beyond that, the oldest are dropped.
const MOST_OWED: usize = 1_024;

/// A request that the node has not answered. It is sent again when the node can be reached.
struct Owed {
    until: Instant,
    step: Arc<Step>,
}

/// Which run of the server a connection leads to. The connection ends when the server restarts.
#[derive(Clone)]
struct Greeted {
    generation: u64,
    mark: Arc<Mark>,
}

/// How a node answers a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeState {
    /// It has no mark: nothing has ever been stored on it, or everything was lost.
    Unmarked,
    Counts,
    /// It may have forgotten something. It counts after this time.
    Quarantined(Duration),
}

impl Node {
    pub(super) fn new(server: Server, common: Arc<Common>) -> Self {
        let server = Arc::new(server);
        let subscriptions = Subscriptions::new(Servers::One(Arc::clone(&server)), None);
        Self { server, subscriptions, common, greeted: Mutex::default(), owed: Mutex::default() }
    }

    /// Its host and port.
    pub(super) fn address(&self) -> &str {
        self.server.address()
    }

    /// Runs a script that begins with the mark.
    pub(super) async fn run_marked<T: FromRedisValue>(
        &self,
        lane: Lane,
        step: Step,
    ) -> Result<T, BackendError> {
        // The script itself is sent only after this has succeeded.
        let greeted = self.greeted_over(lane).await.map_err(BackendError::not_sent)?;
        let step = step.header(Header::Mark(greeted.mark)).only_over(greeted.generation);
        read(self.server.send(lane, step, None).await?.value)
    }

    /// Runs scripts that begin with the mark, together. Owes those that it does not answer for the time beside each of
    /// them.
    pub(super) async fn run_all(
        &self,
        lane: Lane,
        requests: &[(Arc<Step>, Option<Duration>)],
    ) -> Vec<Result<Value, BackendError>> {
        let answers = self.answers(lane, requests.iter().map(|(step, _)| step)).await;
        for ((step, owed), answer) in requests.iter().zip(&answers) {
            if let (Some(lasts), Err(_)) = (owed, answer) {
                self.owe(*lasts, Arc::clone(step));
            }
        }
        answers
    }

    async fn answers(
        &self,
        lane: Lane,
        steps: impl ExactSizeIterator<Item = &Arc<Step>>,
    ) -> Vec<Result<Value, BackendError>> {
        let greeted = match self.greeted_over(lane).await {
            Ok(greeted) => greeted,
            // The scripts themselves are sent only after this has succeeded.
            Err(error) => return steps.map(|_| Err(error.clone().not_sent())).collect(),
        };
        let steps = steps.map(|step| {
            let step = Step::clone(step).header(Header::Mark(Arc::clone(&greeted.mark)));
            step.only_over(greeted.generation)
        });
        let answers = self.server.send_all(lane, steps.collect()).await;
        answers.into_iter().map(|answer| Ok(answer?.value)).collect()
    }

    /// Runs another script.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        lane: Lane,
        step: Step,
    ) -> Result<T, BackendError> {
        let greeted = self.greeted_over(lane).await.map_err(BackendError::not_sent)?;
        let step = step.only_over(greeted.generation);
        read(self.server.send(lane, step, None).await?.value)
    }

    /// The present connection, which leads to a run of the server that was greeted over it.
    async fn greeted_over(&self, lane: Lane) -> Result<Greeted, BackendError> {
        let present = self.server.lane(lane).generation();
        let known = self.greeted()[index_of(lane)].clone();
        match known.filter(|known| Some(known.generation) == present) {
            Some(known) => Ok(known),
            None => self.greet_over(lane).await,
        }
    }

    async fn greet_over(&self, lane: Lane) -> Result<Greeted, BackendError> {
        let session = self.server.lane(lane).session().await?;
        let known = self.greeted()[index_of(lane)].clone();
        match known.filter(|known| known.generation == session.generation) {
            Some(known) => Ok(known),
            None => Ok(self.enter(lane, &session, Greeting::Enter).await?.0),
        }
    }

    /// Greets the node at the start.
    pub(super) async fn greet(&self, greeting: Greeting) -> Result<NodeState, BackendError> {
        let acquires = self.server.lane(Lane::Acquire);
        let (session, acquires) = tokio::join!(self.server.link().session(), acquires.session());
        let session = session?;
        if greeting == Greeting::Look {
            return Ok(self.ask(Lane::Keep, &session, greeting).await?.1);
        }
        let (Greeted { mark, .. }, state) = self.enter(Lane::Keep, &session, greeting).await?;
        // This connection was made before the greeting. It leads to the run that was greeted, or nowhere.
        if let Ok(Session { generation, .. }) = acquires {
            self.greeted()[index_of(Lane::Acquire)] = Some(Greeted { generation, mark });
        }
        Ok(state)
    }

    /// Notes that the node has no valid mark any more: it was emptied. It is greeted again before the next request.
    pub(super) fn forget_greeting(&self) {
        *self.greeted() = [None, None];
    }

    async fn enter(
        &self,
        lane: Lane,
        session: &Session,
        greeting: Greeting,
    ) -> Result<(Greeted, NodeState), BackendError> {
        let (run, state) = self.ask(lane, session, greeting).await?;
        let new = Greeted { generation: session.generation, mark: self.mark(run) };
        let (is_known, before) = {
            let mut greeted = self.greeted();
            let is_known = greeted.iter().flatten().any(|known| known.mark == new.mark);
            (is_known, greeted[index_of(lane)].replace(new.clone()))
        };
        if let NodeState::Quarantined(left) = state
            && !is_known
        {
            tracing::warn!(
                target: "dlock",
                node = self.address(),
                counts_in = ?left,
                "this redis node was restarted or emptied, or is new: it counts towards no majority until every lease and token that it may have forgotten is over"
            );
        }
        if lane == Lane::Keep {
            let owed = std::mem::take(&mut *self.owed());
            // Requests that an earlier run had not executed yet were lost with that run.
            if before.is_some_and(|before| before.mark == new.mark) && !owed.is_empty() {
                let server = Arc::clone(&self.server);
                tokio::spawn(settle(server, session.clone(), Arc::clone(&new.mark), owed));
            }
        }
        Ok((new, state))
    }

    /// Notes a request that was not answered. It is sent again over the next connection.
    pub(super) fn owe(&self, lasts: Duration, step: Arc<Step>) {
        let mut owed = self.owed();
        if owed.len() == MOST_OWED {
            owed.pop_front();
        }
        owed.push_back(Owed { until: Instant::now() + lasts, step });
    }

    fn owed(&self) -> MutexGuard<'_, VecDeque<Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(
        &self,
        lane: Lane,
        session: &Session,
        greeting: Greeting,
    ) -> Result<(Arc<str>, NodeState), BackendError> {
        let step = scripts::greet(&self.common.mark, self.common.quarantine(), greeting);
        let answered = self.server.send_in(lane, session.clone(), &step).await?;
        let (run, left, longest, clock): (String, i64, u64, u64) = read(answered.value)?;
        self.common.quarantine.fetch_max(longest, Ordering::Relaxed);
        self.check_clock(Duration::from_millis(clock));
        let state = match left {
            ..0 => NodeState::Unmarked,
            0 => NodeState::Counts,
            left => NodeState::Quarantined(Duration::from_millis(left.unsigned_abs())),
        };
        Ok((run.into(), state))
    }

    fn mark(&self, run: Arc<str>) -> Arc<Mark> {
        let Common { mark, tolerance, .. } = &*self.common;
        let tolerance = u64::try_from(tolerance.as_micros()).unwrap_or(u64::MAX);
        Arc::new(Mark { name: Arc::clone(mark), run, tolerance })
    }

    fn check_clock(&self, clock: Duration) {
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let apart = here.abs_diff(clock);
        if apart > self.common.tolerance {
            tracing::warn!(
                target: "dlock",
                node = self.address(),
                ?apart,
                "the clocks of this redis node and of this machine differ by more than the tolerance: set them"
            );
        }
    }

    fn greeted(&self) -> MutexGuard<'_, [Option<Greeted>; 2]> {
        self.greeted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of locks that begin with this.
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

const fn index_of(lane: Lane) -> usize {
    match lane {
        Lane::Acquire => 0,
        Lane::Keep => 1,
    }
}

/// Sends the owed requests, as long as the connection lasts.
async fn settle(server: Arc<Server>, session: Session, mark: Arc<Mark>, owed: VecDeque<Owed>) {
    for Owed { until, step } in owed {
        if until > Instant::now() {
            let step = Step::clone(&step).header(Header::Mark(Arc::clone(&mark)));
            let sent = server.send_in(Lane::Keep, session.clone(), &step).await;
            if sent.is_err() {
                return;
            }
        }
    }
}
