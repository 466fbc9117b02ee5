//! Requests to all nodes. Those of independent callers that are ready together go out together, in one message to each
//! node, and are gathered together.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::gather::{Answers, GRACE};
use super::node::Node;
use super::round::majority;
use crate::error::BackendError;
use crate::stores::redis::server::Lane;
use crate::stores::redis::step::Step;
use crate::stores::shared::batcher::Carrier;

/// How long a message counts as in flight at most. After that, its callers wait on their own, and the next message is
/// sent: a minority that is silent delays nobody else.
const PATIENCE: Duration = Duration::from_millis(20);

/// A request to every node.
pub(super) struct Asked {
    pub(super) step: Arc<Step>,
    pub(super) terms: Terms,
}

/// How long a request waits for its answers.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// How long the nodes may take.
    pub(super) limit: Duration,
    /// Whether a node that answers this counts towards the majority. Once there is a majority, the remaining nodes get
    /// as much time again as has passed, but at least [`GRACE`] and never more than is left of the limit.
    pub(super) counts: fn(&Value) -> bool,
    /// The same when there can be no majority any more.
    pub(super) may_fail: bool,
    /// How long a node that does not answer owes the request.
    pub(super) owed: Option<Duration>,
}

/// What has become of a request when its message is no longer in flight.
pub(super) enum Heard {
    Answers(Answers<Value>),
    /// Some nodes are slower.
    Later(oneshot::Receiver<Answers<Value>>),
    Failed(BackendError),
}

/// Sends requests of one kind to all nodes.
pub(super) struct Broadcast {
    nodes: Arc<[Arc<Node>]>,
    lane: Lane,
}

impl Broadcast {
    pub(super) fn new(nodes: Arc<[Arc<Node>]>, lane: Lane) -> Self {
        Self { nodes, lane }
    }

    /// One message to each node.
    fn send(&self, asked: &[Asked]) -> Vec<Asking> {
        let requests: Arc<[_]> =
            asked.iter().map(|one| (Arc::clone(&one.step), one.terms.owed)).collect();
        let nodes = self.nodes.iter().enumerate();
        let asking = nodes.map(|(number, node)| {
            let (node, requests, lane) = (Arc::clone(node), Arc::clone(&requests), self.lane);
            let answers = async move { node.run_all(lane, &requests).await };
            Asking { node: number, answers: answers.boxed() }
        });
        asking.collect()
    }
}

impl Carrier for Broadcast {
    type Request = Asked;
    type Answer = Heard;

    const MOST: usize = 128;
    const MOST_BYTES: usize = 64 * 1024;
    const ENOUGH: usize = 32;
    const MOST_IN_FLIGHT: usize = 2;

    fn limit(&self) -> Duration {
        PATIENCE * 10
    }

    fn size(asked: &Asked) -> usize {
        asked.step.size()
    }

    async fn carry_one(&self, asked: Asked) -> Heard {
        let mut heard = self.carry(vec![asked]).await;
        heard.pop().unwrap_or_else(|| Self::failed(BackendError::transient("no answer")))
    }

    async fn carry(&self, asked: Vec<Asked>) -> Vec<Heard> {
        let mut gathering = Gathering::new(self.send(&asked), &asked);
        gathering.wait(Some(PATIENCE)).await;
        let heard = gathering.requests.iter_mut().map(Request::heard).collect();
        if !gathering.asking.is_empty() {
            tokio::spawn(async move { gathering.wait(None).await });
        }
        heard
    }

    fn failed(error: BackendError) -> Heard {
        Heard::Failed(error)
    }
}

/// A message on its way to a node.
struct Asking {
    node: usize,
    answers: BoxFuture<'static, Vec<Result<Value, BackendError>>>,
}

/// The answers to a message.
struct Gathering {
    began: Instant,
    asking: Vec<Asking>,
    requests: Vec<Request>,
}

impl Gathering {
    fn new(asking: Vec<Asking>, asked: &[Asked]) -> Self {
        let (began, nodes) = (Instant::now(), asking.len());
        let request = |asked: &Asked| Request::new(asked.terms, began, nodes);
        Self { began, requests: asked.iter().map(request).collect(), asking }
    }

    /// Waits until no request waits for more answers, but not for longer than `patience`. Without that, waits for late
    /// answers too: so a peer that has vanished is noticed, and a slow one is not mistaken for it.
    async fn wait(&mut self, patience: Option<Duration>) {
        let at_most = patience.map(|patience| self.began + patience);
        let mut timer = pin!(sleep_until(self.began));
        std::future::poll_fn(|cx| {
            loop {
                self.poll_answers(cx);
                let now = Instant::now();
                let next = self.finish(now);
                if self.asking.is_empty() || (next.is_none() && at_most.is_some()) {
                    return Poll::Ready(());
                }
                let Some(until) = next.map(|next| at_most.map_or(next, |most| next.min(most)))
                else {
                    return Poll::Pending;
                };
                if at_most.is_some_and(|most| most <= now) {
                    return Poll::Ready(());
                }
                if timer.deadline() != until {
                    timer.as_mut().reset(until);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    fn poll_answers(&mut self, cx: &mut Context<'_>) {
        // They are few, so each of them is polled when one of them wakes the task.
        let Self { began, asking, requests } = self;
        asking.retain_mut(|asking| {
            let Poll::Ready(answers) = asking.answers.poll_unpin(cx) else { return true };
            let now = Instant::now();
            for (request, answer) in requests.iter_mut().zip(answers) {
                request.hear(asking.node, answer, *began, now);
            }
            false
        });
    }

    /// Answers the requests whose time is up. Returns when that is the case for the next one.
    fn finish(&mut self, now: Instant) -> Option<Instant> {
        let is_over = self.asking.is_empty();
        let open = self.requests.iter_mut().filter(|request| !request.is_over);
        let mut next: Option<Instant> = None;
        for request in open {
            if is_over || request.until <= now {
                let silent = self.asking.iter().map(|asking| asking.node).collect();
                request.finish(silent);
            } else {
                next = Some(next.map_or(request.until, |next| next.min(request.until)));
            }
        }
        next
    }
}

/// A request whose answers are gathered.
struct Request {
    terms: Terms,
    nodes: usize,
    until: Instant,
    answers: Answers<Value>,
    counted: usize,
    is_over: bool,
    later: Option<oneshot::Sender<Answers<Value>>>,
}

impl Request {
    fn new(terms: Terms, began: Instant, nodes: usize) -> Self {
        let until = began + terms.limit;
        let answers = Answers::with_capacity(nodes);
        Self { terms, nodes, until, answers, counted: 0, is_over: false, later: None }
    }

    fn hear(
        &mut self,
        node: usize,
        answer: Result<Value, BackendError>,
        began: Instant,
        now: Instant,
    ) {
        if self.is_over {
            return;
        }
        self.counted += usize::from(answer.as_ref().is_ok_and(self.terms.counts));
        self.answers.add(node, answer);
        if self.is_decided() {
            self.until = self.until.min(now + (now - began).max(GRACE));
        }
    }

    fn is_decided(&self) -> bool {
        let majority = majority(self.nodes);
        let unheard = self.nodes - self.answers.results();
        self.counted >= majority || self.terms.may_fail && self.counted + unheard < majority
    }

    fn finish(&mut self, silent: Vec<usize>) {
        self.is_over = true;
        self.answers.end(silent);
        if let Some(later) = self.later.take() {
            // The caller may be gone.
            let _ = later.send(std::mem::take(&mut self.answers));
        }
    }

    fn heard(&mut self) -> Heard {
        if self.is_over {
            return Heard::Answers(std::mem::take(&mut self.answers));
        }
        let (sender, receiver) = oneshot::channel();
        self.later = Some(sender);
        Heard::Later(receiver)
    }
}
