//! Gathers the answers to requests that were sent to all nodes together. Each request has its own limit and its own
//! outcome, and waits for no other one.

use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::answers::Answers;
use super::gather::GRACE;
use super::round::majority;
use crate::error::BackendError;

/// A message to the node with this number.
pub(super) struct Asking {
    pub(super) node: usize,
    /// One answer for each request.
    pub(super) answers: BoxFuture<'static, Vec<Result<Value, BackendError>>>,
}

/// How long a request waits for its answers.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// How long the nodes may take.
    pub(super) limit: Duration,
    /// Whether a node that answers this counts towards the majority. Once there is a majority, the request is decided,
    /// and the remaining nodes get as much time again as has passed, but at least [`GRACE`] and never more than is left
    /// of the limit. What arrives in this time still counts.
    pub(super) counts: fn(&Value) -> bool,
    /// Whether it is also decided when there can be no majority any more.
    pub(super) may_fail: bool,
}

/// What has become of a request when its message no longer counts as in flight.
pub(super) enum Heard {
    Answers(Answers<Value>),
    /// It waits for slower nodes.
    Later(oneshot::Receiver<Answers<Value>>),
    Failed(BackendError),
}

/// The answers to one message.
pub(super) struct Gathering {
    began: Instant,
    nodes: usize,
    /// The nodes that have not answered.
    asking: Vec<Asking>,
    requests: Vec<Request>,
}

impl Gathering {
    /// Each of these futures answers for all requests, in the order of their terms.
    pub(super) fn new(asking: Vec<Asking>, requests: impl Iterator<Item = Terms>) -> Self {
        let (began, nodes) = (Instant::now(), asking.len());
        let requests = requests.map(|terms| Request::new(terms, began, nodes)).collect();
        Self { began, nodes, asking, requests }
    }

    /// Waits until all requests have their answers, but not for longer than `patience`, and once a majority of the nodes
    /// has answered, only as long again as that took.
    ///
    /// Slower nodes may answer in the background, for as long as their connection allows. So a peer that has vanished
    /// is noticed, and a slow one is not mistaken for it.
    ///
    /// Cancel safe: requests without an answer are dropped.
    pub(super) async fn heard_within(mut self, patience: Duration) -> Vec<Heard> {
        let mut latest = self.began + patience;
        while let Some(next) = self.end_requests() {
            if latest <= Instant::now() {
                break;
            }
            let _ = timeout_at(next.min(latest), self.hear_some()).await;
            if self.nodes - self.asking.len() >= majority(self.nodes) {
                latest = latest.min(Instant::now() + self.began.elapsed());
            }
        }
        let heard = self.requests.iter_mut().map(Request::heard).collect();
        if !self.asking.is_empty() {
            tokio::spawn(self.hear_the_rest());
        }
        heard
    }

    async fn hear_the_rest(mut self) {
        while !self.asking.is_empty() {
            match self.end_requests() {
                Some(next) => _ = timeout_at(next, self.hear_some()).await,
                None => self.hear_some().await,
            }
        }
        self.end_requests();
    }

    /// Waits until at least one more node has answered.
    async fn hear_some(&mut self) {
        std::future::poll_fn(|cx| {
            let Self { began, asking, requests, .. } = self;
            let before = asking.len();
            // They are few, so each of them is polled when one of them wakes the task.
            asking.retain_mut(|asking| {
                let Poll::Ready(answers) = asking.answers.poll_unpin(cx) else { return true };
                for (request, answer) in requests.iter_mut().zip(answers) {
                    request.hear(asking.node, answer, *began);
                }
                false
            });
            if asking.len() < before { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Ends the requests that wait for nobody any more. Returns when the time of the next one is up, if there is one.
    fn end_requests(&mut self) -> Option<Instant> {
        let Self { asking, requests, .. } = self;
        let (now, mut next) = (Instant::now(), None);
        for request in requests.iter_mut().filter(|request| !request.has_ended) {
            if asking.is_empty() || request.until <= now {
                request.end(asking.iter().map(|asking| asking.node).collect());
            } else {
                next = Some(next.map_or(request.until, |next| request.until.min(next)));
            }
        }
        next
    }
}

/// A request whose answers are gathered.
struct Request {
    terms: Terms,
    nodes: usize,
    /// How long it waits.
    until: Instant,
    answers: Answers<Value>,
    /// The number of answers that count towards the majority.
    counted: usize,
    has_ended: bool,
    /// The caller, if it no longer waits for the message.
    caller: Option<oneshot::Sender<Answers<Value>>>,
}

impl Request {
    fn new(terms: Terms, began: Instant, nodes: usize) -> Self {
        Self {
            terms,
            nodes,
            until: began + terms.limit,
            answers: Answers::of(nodes),
            counted: 0,
            has_ended: false,
            caller: None,
        }
    }

    fn hear(&mut self, node: usize, answer: Result<Value, BackendError>, began: Instant) {
        if self.has_ended {
            return;
        }
        self.counted += usize::from(answer.as_ref().is_ok_and(self.terms.counts));
        self.answers.add(node, answer);
        if self.is_decided() {
            let now = Instant::now();
            self.until = self.until.min(now + (now - began).max(GRACE));
        }
    }

    fn is_decided(&self) -> bool {
        let (majority, unheard) = (majority(self.nodes), self.nodes - self.answers.results());
        self.counted >= majority || self.terms.may_fail && self.counted + unheard < majority
    }

    fn end(&mut self, silent: Vec<usize>) {
        self.has_ended = true;
        self.answers.end(silent);
        if let Some(caller) = self.caller.take() {
            // The caller may be gone.
            let _ = caller.send(std::mem::take(&mut self.answers));
        }
    }

    fn heard(&mut self) -> Heard {
        if self.has_ended {
            return Heard::Answers(std::mem::take(&mut self.answers));
        }
        let (sender, receiver) = oneshot::channel();
        self.caller = Some(sender);
        Heard::Later(receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);
    const PATIENCE: Duration = Duration::from_millis(20);

    fn yes() -> Terms {
        let counts = |answer: &Value| *answer == Value::Int(1);
        Terms { limit: LIMIT, counts, may_fail: true }
    }

    /// Nodes that answer after so many milliseconds, each with one number for each request.
    fn nodes(nodes: &[(u64, &[i64])]) -> Vec<Asking> {
        let node = |(node, (after, numbers)): (usize, &(u64, &[i64]))| {
            let (after, numbers) = (Duration::from_millis(*after), numbers.to_vec());
            let answers = async move {
                sleep(after).await;
                numbers.into_iter().map(|number| Ok(Value::Int(number))).collect()
            };
            Asking { node, answers: answers.boxed() }
        };
        nodes.iter().enumerate().map(node).collect()
    }

    /// The nodes that were heard, and those that were not waited for.
    fn shown(answers: &Answers<Value>) -> (Vec<usize>, Vec<usize>) {
        (answers.iter().map(|(node, _)| node).collect(), answers.silent().to_vec())
    }

    async fn answers(heard: Heard) -> Answers<Value> {
        match heard {
            Heard::Answers(answers) => answers,
            Heard::Later(answers) => answers.await.expect("it is answered"),
            Heard::Failed(error) => panic!("{error}"),
        }
    }

    async fn all_of(asking: Vec<Asking>, requests: usize) -> Vec<(Vec<usize>, Vec<usize>)> {
        let gathering = Gathering::new(asking, std::iter::repeat_n(yes(), requests));
        let mut all = vec![];
        for heard in gathering.heard_within(PATIENCE).await {
            all.push(shown(&answers(heard).await));
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn all_requests_have_all_answers() {
        let asking = nodes(&[(1, &[1, 1]), (0, &[1, 0]), (2, &[1, 0])]);
        assert_eq!(all_of(asking, 2).await, vec![(vec![1, 0, 2], vec![]); 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn once_decided_the_others_get_as_much_time_again() {
        let asking = nodes(&[(4, &[1]), (4, &[1]), (7, &[1]), (9, &[1]), (4, &[1])]);
        assert_eq!(all_of(asking, 1).await, [(vec![0, 1, 4, 2], vec![3])]);
    }

    #[tokio::test(start_paused = true)]
    async fn once_decided_the_others_get_the_grace_at_least() {
        let began = Instant::now();
        let asking = nodes(&[(0, &[1]), (0, &[1]), (1, &[1]), (0, &[1]), (5, &[1])]);
        assert_eq!(all_of(asking, 1).await, [(vec![0, 1, 3, 2], vec![4])]);
        assert!(began.elapsed() < GRACE * 2, "{:?}", began.elapsed());
    }

    /// The first has a majority, the second cannot have one any more, the third needs a slow node.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_the_slow_node_of_another() {
        let began = Instant::now();
        let asking = nodes(&[(1, &[1, 0, 1]), (1, &[1, 0, 0]), (300, &[1, 0, 1])]);
        let mut heard = Gathering::new(asking, [yes(); 3].into_iter()).heard_within(PATIENCE).await;
        assert!(began.elapsed() <= GRACE * 2, "{:?}", began.elapsed());
        let late = heard.pop();
        for heard in heard {
            assert_eq!(shown(&answers(heard).await), (vec![0, 1], vec![2]));
        }
        let Some(Heard::Later(answers)) = late else { panic!("two of three are needed") };
        assert_eq!(shown(&answers.await.expect("it is answered")), (vec![0, 1, 2], vec![]));
        assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_limit() {
        let began = Instant::now();
        let asking = nodes(&[(0, &[1]), (900, &[1]), (900, &[1])]);
        let mut heard = Gathering::new(asking, [yes()].into_iter()).heard_within(PATIENCE).await;
        let Some(Heard::Later(answers)) = heard.pop() else { panic!("one of three") };
        assert_eq!(shown(&answers.await.expect("it is answered")), (vec![0], vec![1, 2]));
        assert!(began.elapsed() < LIMIT + GRACE, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn late_nodes_answer_in_the_background() {
        let done = Arc::new(AtomicU32::new(0));
        let mut asking = nodes(&[(1, &[1]), (1, &[1]), (900, &[1])]);
        for asking in &mut asking {
            let (answers, done) = (
                std::mem::replace(&mut asking.answers, async { vec![] }.boxed()),
                Arc::clone(&done),
            );
            asking.answers =
                answers.inspect(move |_| _ = done.fetch_add(1, Ordering::SeqCst)).boxed();
        }
        let heard = Gathering::new(asking, [yes()].into_iter()).heard_within(PATIENCE).await;
        for heard in heard {
            assert_eq!(shown(&answers(heard).await), (vec![0, 1], vec![2]));
        }
        assert_eq!(done.load(Ordering::SeqCst), 2);
        sleep(LIMIT * 3).await;
        assert_eq!(done.load(Ordering::SeqCst), 3);
    }
}
