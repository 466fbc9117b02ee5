//! Numbered requests: what is sent to the nodes in one round of one claim.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{FromRedisValue, Value};

use super::Redlock;
use super::answers::Answers;
use super::broadcast::Asked;
use super::gather::{Ask, GRACE, gather};
use super::gathering::{Heard, Terms};
use super::round::{Round, Win};
use super::scripts::{self, Acquired};
use crate::backend::{Claim, Release};
use crate::error::BackendError;
use crate::stores::redis::names::Names;
use crate::stores::redis::server::Lane;
use crate::stores::redis::step::Step;
use crate::token::FencingToken;

/// How much longer than the ttl a node owes a release that it has not answered.
const OWED: Duration = Duration::from_mins(1);

/// Numbers the rounds of this process, so that a node recognizes a late request of an earlier round. All
/// backends share one sequence, because any clone may retry an owner's claim.
static ROUND: AtomicU64 = AtomicU64::new(1);

/// One round of a claim. Its requests carry the number of the round.
pub(super) struct Call<'a> {
    redlock: &'a Redlock,
    claim: &'a Claim,
    names: Names,
    round: u64,
    limit: Duration,
}

impl<'a> Call<'a> {
    pub(super) fn new(redlock: &'a Redlock, claim: &'a Claim) -> Self {
        Self {
            redlock,
            claim,
            names: redlock.names(&claim.key),
            round: ROUND.fetch_add(1, Ordering::Relaxed),
            limit: redlock.limit(claim.ttl),
        }
    }

    /// Asks every node for the lock, until the round is decided.
    pub(super) async fn acquire(&self, proposed: FencingToken) -> Answers<Acquired> {
        let step = scripts::acquire(&self.names, self.claim, self.round, proposed);
        let is_granted = |answer: &Value| matches!(answer, Value::Int(_));
        let terms = Terms { limit: self.limit, counts: is_granted, may_fail: true };
        self.ask_all(Lane::Acquire, step, terms, None).await
    }

    /// Asks every node to renew the lease, until a majority has.
    pub(super) async fn renew(&self) -> Answers<u8> {
        let step = scripts::renew(&self.names, self.claim, self.round);
        self.ask_all(Lane::Keep, step, self.until_a_majority_has(), None).await
    }

    /// Asks every node to release the lease, until a majority has.
    ///
    /// A node that does not answer it owes it: an earlier request, not executed yet, may still be on its way to that
    /// node.
    pub(super) async fn release(&self, release: Release) -> Answers<u8> {
        let step = scripts::release(&self.names, self.claim, self.round, release);
        let terms = self.until_a_majority_has();
        self.ask_all(Lane::Keep, step, terms, Some(self.claim.ttl + OWED)).await
    }

    fn until_a_majority_has(&self) -> Terms {
        let has = |answer: &Value| *answer == Value::Int(1);
        Terms { limit: self.limit, counts: has, may_fail: false }
    }

    /// Asks every node, together with other callers that are ready.
    async fn ask_all<T: FromRedisValue>(
        &self,
        lane: Lane,
        step: Step,
        terms: Terms,
        owed: Option<Duration>,
    ) -> Answers<T> {
        let step = Arc::new(step);
        let asked = Asked { step: Arc::clone(&step), terms, owed };
        let error = match self.redlock.broadcast(lane).send(asked).await {
            Heard::Answers(answers) => return answers.read(),
            Heard::Later(answers) => match answers.await {
                Ok(answers) => return answers.read(),
                Err(_) => {
                    BackendError::transient("the task that waits for redlock's nodes has ended")
                }
            },
            Heard::Failed(error) => error,
        };
        let nodes = &self.redlock.0.nodes;
        if let Some(lasts) = owed {
            nodes.iter().for_each(|node| node.owe(lasts, Arc::clone(&step)));
        }
        Answers::failed(nodes.len(), &error)
    }

    fn ask<T: FromRedisValue + Send + 'static>(
        &self,
        number: usize,
        lane: Lane,
        step: &Step,
    ) -> Ask<T> {
        let (node, step) = (Arc::clone(&self.redlock.0.nodes[number]), step.clone());
        Ask::new(number, async move { node.run_marked(lane, step).await })
    }

    /// A request that ends a lease. A node that does not answer it owes it: an earlier request, not executed
    /// yet, may still be on its way to that node.
    fn ask_to_end(&self, number: usize, step: &Arc<Step>) -> Ask<u8> {
        let (node, step) = (Arc::clone(&self.redlock.0.nodes[number]), Arc::clone(step));
        let lasts = self.claim.ttl + OWED;
        Ask::new(number, async move {
            let answer = node.run_marked(Lane::Keep, Step::clone(&step)).await;
            if answer.is_err() {
                node.owe(lasts, step);
            }
            answer
        })
    }

    /// Stores the token on the nodes that granted a smaller one.
    pub(super) async fn write_back(&self, win: &mut Win) {
        let step = scripts::raise(&self.names, self.claim, self.round, win.token());
        let behind = win.behind().iter();
        let asks = behind.map(|node| self.ask(*node, Lane::Acquire, &step)).collect();
        let is_stored = |answers: &Answers<u8>| {
            let newest = answers.newest();
            newest.is_some_and(|(_, stored)| matches!(stored, Ok(1))) && win.wrote()
        };
        gather(asks, self.limit, is_stored).await;
    }

    /// Undoes what a failed round may have been granted.
    ///
    /// Nodes that did not answer are asked to grant nothing any more.
    ///
    /// # Errors
    /// A node that granted the lock has not confirmed in time. The caller has to release the claim then.
    pub(super) async fn retract(&self, round: &Round) -> Result<(), BackendError> {
        let retract = |has_granted| {
            Arc::new(scripts::retract(&self.names, self.claim, self.round, has_granted))
        };
        let (from_granted, from_silent) = (retract(true), retract(false));
        let (mut granted, mut asks) = (vec![], vec![]);
        for (node, has_granted) in round.may_hold() {
            let step = if has_granted { &from_granted } else { &from_silent };
            asks.push(self.ask_to_end(node, step));
            if has_granted {
                granted.push(node);
            }
        }
        let limit = if granted.is_empty() { GRACE } else { self.limit };
        let are_confirmed = |answers: &Answers<u8>| granted.iter().all(|node| answers.has(*node));
        let answers = gather(asks, limit, are_confirmed).await;
        let unconfirmed = granted.iter().filter(|node| !answers.has(**node)).count();
        if unconfirmed == 0 {
            return Ok(());
        }
        Err(BackendError::transient(format!(
            "redlock: {unconfirmed} of the nodes that granted a failed attempt did not confirm in time that it was undone"
        )))
    }
}
