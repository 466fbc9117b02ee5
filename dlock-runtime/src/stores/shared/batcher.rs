//! Group commit: requests of independent callers that are ready while another one is in flight go out together.
//!
//! With nothing in flight, a request leaves at once, in its caller's own task. While that request or a batch is in
//! flight, a background task gathers what arrives and sends it as the next batch; where a store gains from it, the next
//! batch leaves as soon as enough requests have gathered. The task ends when nothing is left to send. A caller never
//! waits for another caller's task to be polled: only its own request is sent from there. Nor does it wait for another
//! runtime, which may stand still: callers outside the runtime of the background task send their requests themselves.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::{Handle, Id};
use tokio::sync::{Notify, oneshot};

use crate::error::BackendError;

/// Sends requests, alone or several together.
pub(crate) trait Carrier: Send + Sync + 'static {
    type Request: Send + 'static;
    type Answer: Send + 'static;

    /// The most requests in one batch.
    const MOST: usize;

    /// The most bytes in one batch. One request may exceed it, and then goes alone.
    const MOST_BYTES: usize;

    /// How many gathered requests are sent although a batch is in flight, so that the store always has something to do.
    const ENOUGH: usize = usize::MAX;

    /// The most batches in flight.
    const MOST_IN_FLIGHT: usize = 1;

    /// After this time without an answer, requests that arrive leave with another batch: the present one may hang.
    fn limit(&self) -> Duration;

    /// Roughly how many bytes the request takes up.
    fn size(request: &Self::Request) -> usize;

    /// Sends one request. Answers in bounded time.
    fn carry_one(&self, request: Self::Request) -> impl Future<Output = Self::Answer> + Send;

    /// Sends several requests together. Answers each of them, in their order and in bounded time.
    fn carry(&self, requests: Vec<Self::Request>)
    -> impl Future<Output = Vec<Self::Answer>> + Send;

    /// The answer to a request that failed without being answered by the carrier.
    fn failed(error: BackendError) -> Self::Answer;
}

/// Batches the requests to one carrier.
pub(crate) struct Batcher<C: Carrier>(Arc<Inner<C>>);

struct Inner<C: Carrier> {
    carrier: C,
    state: Mutex<State<C>>,
    /// Notified when [enough](Carrier::ENOUGH) requests have gathered.
    gathered: Notify,
}

struct State<C: Carrier> {
    waiting: VecDeque<Waiting<C>>,
    /// A caller's own request is in flight.
    alone: bool,
    sender: Option<SenderState>,
    /// Numbers the background tasks.
    started: u64,
}

/// The background task that sends batches.
struct SenderState {
    number: u64,
    runtime: Id,
    /// When it last sent a batch or had an answer.
    since: Instant,
}

struct Waiting<C: Carrier> {
    request: C::Request,
    answer: oneshot::Sender<C::Answer>,
}

/// How a request is sent.
enum Entered<'a, C: Carrier> {
    Alone(C::Request, Option<Alone<'a, C>>),
    Queued(oneshot::Receiver<C::Answer>),
}

impl<C: Carrier> Batcher<C> {
    pub(crate) fn new(carrier: C) -> Self {
        let state = State { waiting: VecDeque::new(), alone: false, sender: None, started: 0 };
        Self(Arc::new(Inner { carrier, state: Mutex::new(state), gathered: Notify::new() }))
    }

    #[cfg(feature = "redis")]
    pub(crate) fn carrier(&self) -> &C {
        &self.0.carrier
    }

    /// Sends a request, alone or in a batch with others.
    ///
    /// If this is dropped before the request was sent, the request is not sent; otherwise it is executed, and its
    /// answer dropped.
    pub(crate) async fn send(&self, request: C::Request) -> C::Answer {
        match self.0.enter(request) {
            Ok(Entered::Alone(request, _alone)) => self.0.carrier.carry_one(request).await,
            Ok(Entered::Queued(answer)) => answer.await.unwrap_or_else(|_| C::failed(ended())),
            Err(error) => C::failed(error),
        }
    }
}

impl<C: Carrier> Clone for Batcher<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Carrier> Inner<C> {
    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, request: C::Request) -> Result<Entered<'_, C>, BackendError> {
        let runtime = Handle::try_current()
            .map_err(|_| BackendError::permanent("there is no tokio runtime").not_sent())?;
        let mut state = self.state();
        let starts = match &state.sender {
            Some(sender) if sender.runtime != runtime.id() => {
                return Ok(Entered::Alone(request, None));
            }
            Some(sender) if sender.since.elapsed() > self.carrier.limit() => {
                Some(self.new_sender(&mut state, &runtime))
            }
            Some(_) => None,
            None if !state.alone => {
                state.alone = true;
                return Ok(Entered::Alone(request, Some(Alone(self))));
            }
            None => Some(self.new_sender(&mut state, &runtime)),
        };
        let (answer, receiver) = oneshot::channel();
        state.waiting.push_back(Waiting { request, answer });
        let is_enough = state.waiting.len().is_multiple_of(C::ENOUGH);
        drop(state);
        if let Some(sender) = starts {
            // Without the lock: a runtime that is shutting down drops the task at once.
            runtime.spawn(sender.run());
        } else if is_enough {
            self.gathered.notify_one();
        }
        Ok(Entered::Queued(receiver))
    }

    fn new_sender(self: &Arc<Self>, state: &mut State<C>, runtime: &Handle) -> Sender<C> {
        state.started += 1;
        let number = state.started;
        state.sender = Some(SenderState { number, runtime: runtime.id(), since: Instant::now() });
        Sender { inner: Arc::clone(self), number }
    }
}

/// Marks that a caller's own request is in flight.
struct Alone<'a, C: Carrier>(&'a Inner<C>);

impl<C: Carrier> Drop for Alone<'_, C> {
    fn drop(&mut self) {
        self.0.state().alone = false;
    }
}

/// The background task. If it is dropped with its runtime, everything that it would have sent fails.
struct Sender<C: Carrier> {
    inner: Arc<Inner<C>>,
    number: u64,
}

type Answers<C> = Vec<oneshot::Sender<<C as Carrier>::Answer>>;

impl<C: Carrier> Sender<C> {
    async fn run(self) {
        let mut in_flight = FuturesUnordered::new();
        loop {
            while let Some((requests, answers)) = self.next_batch(in_flight.len()) {
                in_flight.push(self.send(requests, answers));
            }
            if in_flight.is_empty() {
                return;
            }
            tokio::select! {
                // Callers that have their answers run first: their next requests are part of the next batch.
                Some(()) = in_flight.next() => tokio::task::yield_now().await,
                () = self.inner.gathered.notified(), if self.is_current() => {
                    // Another task has replaced this one meanwhile.
                    if !self.is_current() {
                        self.inner.gathered.notify_one();
                    }
                }
            }
        }
    }

    /// Is this the task that sends, or has another one replaced it?
    fn is_current(&self) -> bool {
        self.inner.state().sender.as_ref().is_some_and(|sender| sender.number == self.number)
    }

    async fn send(&self, requests: Vec<C::Request>, answers: Answers<C>) {
        let outcomes = self.inner.carrier.carry(requests).await;
        debug_assert_eq!(outcomes.len(), answers.len(), "each request has an answer");
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // The caller may be gone.
            let _ = answer.send(outcome);
        }
    }

    /// Takes the next batch. `None` if there is none to send now; the task ends then if nothing is in flight. It also
    /// ends when another task has replaced it.
    fn next_batch(&self, in_flight: usize) -> Option<(Vec<C::Request>, Answers<C>)> {
        let mut state = self.inner.state();
        let sender = state.sender.as_mut().filter(|sender| sender.number == self.number)?;
        sender.since = Instant::now();
        let waits = in_flight >= C::MOST_IN_FLIGHT || state.waiting.len() < C::ENOUGH;
        if in_flight > 0 && waits {
            return None;
        }
        // In several batches, so that the store executes one while the answers to another are handled.
        let share = state.waiting.len().div_ceil(C::MOST_IN_FLIGHT - in_flight);
        let most = share.max(C::ENOUGH).min(C::MOST);
        let (mut requests, mut answers, mut bytes) = (vec![], vec![], 0);
        while let Some(next) = state.waiting.front() {
            if next.answer.is_closed() {
                state.waiting.pop_front();
                continue;
            }
            bytes += C::size(&next.request);
            let is_full = requests.len() == most || bytes > C::MOST_BYTES;
            if is_full && !requests.is_empty() {
                break;
            }
            let Waiting { request, answer } = state.waiting.pop_front()?;
            requests.push(request);
            answers.push(answer);
        }
        if requests.is_empty() {
            state.sender.take_if(|_| in_flight == 0);
            return None;
        }
        Some((requests, answers))
    }
}

impl<C: Carrier> Drop for Sender<C> {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        if state.sender.take_if(|sender| sender.number == self.number).is_some() {
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            for Waiting { answer, .. } in waiting {
                let _ = answer.send(C::failed(ended().not_sent()));
            }
        }
    }
}

fn ended() -> BackendError {
    BackendError::transient("the task that sends requests to the store has ended with its runtime")
}
