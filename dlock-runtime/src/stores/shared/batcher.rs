//! Group commit: requests of independent callers that are ready while another one is in flight go out together.
//!
//! With nothing in flight, a request leaves at once, in its caller's own task. While that request or a batch is in
//! flight, a background task gathers what arrives and sends it as the next batch. It ends when nothing is left to
//! send. A caller never waits for another caller's task to be polled: only its own request is sent from there.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::BackendError;

/// Sends requests, alone or several together.
pub(crate) trait Carrier: Send + Sync + 'static {
    type Request: Send + 'static;
    type Answer: Send + 'static;

    /// The most requests in one batch.
    const MOST: usize;

    /// The most bytes in one batch. One request may exceed it, and then goes alone.
    const MOST_BYTES: usize;

    /// How long a batch may take. After that, another one is sent without waiting for it: the runtime that sent it may
    /// stand still.
    fn limit(&self) -> Duration;

    /// Roughly how many bytes the request takes up.
    fn size(request: &Self::Request) -> usize;

    /// Sends one request.
    fn carry_one(&self, request: Self::Request) -> impl Future<Output = Self::Answer> + Send;

    /// Sends several requests together. Answers each of them, in their order.
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
    /// When its present batch was sent.
    since: Instant,
}

struct Waiting<C: Carrier> {
    request: C::Request,
    answer: oneshot::Sender<C::Answer>,
}

/// How a request is sent.
enum Entered<'a, C: Carrier> {
    Alone(C::Request, Alone<'a, C>),
    Queued(oneshot::Receiver<C::Answer>),
}

impl<C: Carrier> Batcher<C> {
    pub(crate) fn new(carrier: C) -> Self {
        let state = State { waiting: VecDeque::new(), alone: false, sender: None, started: 0 };
        Self(Arc::new(Inner { carrier, state: Mutex::new(state) }))
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
        let mut state = self.state();
        if state.sender.is_none() && !state.alone {
            state.alone = true;
            return Ok(Entered::Alone(request, Alone(self)));
        }
        let stalled = |sender: &SenderState| sender.since.elapsed() > self.carrier.limit();
        if state.sender.as_ref().is_none_or(stalled) {
            self.start(&mut state)?;
        }
        let (answer, receiver) = oneshot::channel();
        state.waiting.push_back(Waiting { request, answer });
        Ok(Entered::Queued(receiver))
    }

    fn start(self: &Arc<Self>, state: &mut State<C>) -> Result<(), BackendError> {
        let runtime = Handle::try_current()
            .map_err(|_| BackendError::permanent("there is no tokio runtime").not_sent())?;
        state.started += 1;
        let number = state.started;
        state.sender = Some(SenderState { number, since: Instant::now() });
        runtime.spawn(Sender { inner: Arc::clone(self), number }.run());
        Ok(())
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
        while let Some((requests, answers)) = self.next_batch() {
            let outcomes = self.inner.carrier.carry(requests).await;
            debug_assert_eq!(outcomes.len(), answers.len(), "each request has an answer");
            let were_several = answers.len() > 1;
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // The caller may be gone.
                let _ = answer.send(outcome);
            }
            if were_several {
                // Those callers run first: their next requests are part of the next batch.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes the next batch; `None` if nothing is left, or another task has replaced this one.
    fn next_batch(&self) -> Option<(Vec<C::Request>, Answers<C>)> {
        let mut state = self.inner.state();
        state.sender.as_mut().filter(|sender| sender.number == self.number)?.since = Instant::now();
        let (mut requests, mut answers, mut bytes) = (vec![], vec![], 0);
        while let Some(next) = state.waiting.front() {
            if next.answer.is_closed() {
                state.waiting.pop_front();
                continue;
            }
            bytes += C::size(&next.request);
            let is_full = requests.len() == C::MOST || bytes > C::MOST_BYTES;
            if is_full && !requests.is_empty() {
                break;
            }
            let Waiting { request, answer } = state.waiting.pop_front()?;
            requests.push(request);
            answers.push(answer);
        }
        if requests.is_empty() {
            state.sender = None;
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
