//! Requests to several nodes at once, and their answers.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::State;
use super::client::MajorityClient;
use crate::error::BackendError;
use crate::sim::calls::{Broken, Call, Request};
use crate::sim::host::Visit;
use crate::sim::store::{What, reply, taken};
use crate::timer;

/// The least time that the remaining nodes get once the outcome is decided.
const GRACE: Duration = Duration::from_millis(2);

/// The answer of the node with this number.
pub(super) type Answered<T> = (usize, Result<T, BackendError>);

type Ask<'a, T> = (usize, Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>);

impl MajorityClient {
    /// Asks these nodes, and collects the answers until all have arrived or `limit` is over.
    ///
    /// When an answer is enough, the remaining nodes get as much time again as has passed.
    pub(super) async fn ask_nodes<T: fmt::Debug + Send + Unpin + 'static>(
        &self,
        nodes: impl IntoIterator<Item = usize>,
        (what, limit): (What, Duration),
        act: impl Fn(&mut State, u64, &mut Visit) -> T + Clone + Send + Sync + 'static,
        is_enough: impl FnMut(&[Answered<T>]) -> bool,
    ) -> Vec<Answered<T>> {
        let ask = |node| -> Ask<'_, T> { (node, Box::pin(self.ask(node, what, act.clone()))) };
        gather(nodes.into_iter().map(ask).collect(), limit, is_enough).await
    }

    /// Asks one node. A connection to a run that was not greeted begins with a greeting.
    async fn ask<T: fmt::Debug + Send + 'static>(
        &self,
        node: usize,
        what: What,
        act: impl Fn(&mut State, u64, &mut Visit) -> T + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let greeted = self.greeted()[node];
        let run = if let Some(run) = greeted {
            run
        } else {
            let greeting = What { name: "greet", ..what };
            let greet = self.call(node, greeting, |state, visit| state.greet(visit));
            let run = greet.await.map_err(BackendError::not_sent)?;
            self.greeted()[node] = Some(run);
            run
        };
        self.call(node, what, move |state, visit| act(state, run, visit)).await
    }

    async fn call<T: fmt::Debug + Send + 'static>(
        &self,
        node: usize,
        what: What,
        act: impl Fn(&mut State, &mut Visit) -> T + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let host = &self.server.nodes[node];
        let state = Arc::clone(&host.state);
        let act = move |visit: &mut Visit| {
            let value = act(&mut state.lock().unwrap_or_else(PoisonError::into_inner), visit);
            reply(value)
        };
        let request = Request { what: what.name.into(), digest: what.digest, act: Arc::new(act) };
        match Call::new(host.id, request).await {
            Ok(reply) => Ok(taken(reply)),
            Err(broken) => {
                self.greeted()[node] = None;
                let error = format!("node {node} did not answer to {}", what.name);
                let error = BackendError::transient(error);
                Err(if broken == Broken::Refused { error.not_sent() } else { error })
            }
        }
    }
}

async fn gather<T: Unpin>(
    mut asks: Vec<Ask<'_, T>>,
    limit: Duration,
    mut is_enough: impl FnMut(&[Answered<T>]) -> bool,
) -> Vec<Answered<T>> {
    let began = Instant::now();
    let mut answers = Vec::with_capacity(asks.len());
    let mut until = began + limit;
    let mut time_is_up = pin!(timer::sleep_until(until));
    std::future::poll_fn(|cx| {
        let before = until;
        asks.retain_mut(|(node, ask)| {
            let Poll::Ready(answer) = ask.as_mut().poll(cx) else { return true };
            answers.push((*node, answer));
            if is_enough(&answers) {
                until = until.min(Instant::now() + began.elapsed().max(GRACE));
            }
            false
        });
        if asks.is_empty() {
            return Poll::Ready(());
        }
        if until < before {
            time_is_up.set(timer::sleep_until(until));
        }
        time_is_up.as_mut().poll(cx)
    })
    .await;
    answers
}
