//! Numbered requests: what is sent to the nodes in one round of one claim.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::FromRedisValue;

use super::Redlock;
use super::gather::{Answers, Ask, GRACE, gather};
use super::node::Node;
use super::round::{Round, Win};
use super::scripts::{self, Member, Tombstone};
use crate::backend::Claim;
use crate::error::BackendError;
use crate::stores::redis::names::Names;
use crate::stores::redis::server::Lane;
use crate::stores::redis::step::Step;

/// How much longer than the ttl a node owes a release that it has not answered.
const OWED: Duration = Duration::from_mins(1);

/// Numbers the rounds of this process, so that a node recognizes a late request of an earlier round. All
/// backends share one sequence, because any clone may retry an owner's claim.
static ROUND: AtomicU64 = AtomicU64::new(1);

/// A script as it is sent to one node.
pub(super) trait NodeScript:
    Fn(&Names, &Claim, Member<'_>) -> Step + Copy + Send + Sync + 'static
{
}

impl<F> NodeScript for F where
    F: Fn(&Names, &Claim, Member<'_>) -> Step + Copy + Send + Sync + 'static
{
}

/// One round of a claim. Its requests carry the number of the round.
pub(super) struct Call {
    redlock: Redlock,
    claim: Claim,
    names: Names,
    round: u64,
    limit: Duration,
}

impl Call {
    pub(super) fn new(redlock: &Redlock, claim: &Claim) -> Arc<Self> {
        Arc::new(Self {
            redlock: redlock.clone(),
            claim: claim.clone(),
            names: redlock.names(&claim.key),
            round: ROUND.fetch_add(1, Ordering::Relaxed),
            limit: redlock.limit(claim.ttl),
        })
    }

    /// How long the nodes may take to answer.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// A request to every node.
    pub(super) fn each<T: FromRedisValue + Send + 'static>(
        self: &Arc<Self>,
        lane: Lane,
        script: impl NodeScript,
    ) -> Vec<Ask<T>> {
        self.nodes().map(|node| self.ask(node, lane, script)).collect()
    }

    /// A request to every node that [ends a lease](Self::ask_to_end).
    pub(super) fn each_to_end(self: &Arc<Self>, script: impl NodeScript) -> Vec<Ask<u8>> {
        self.nodes().map(|node| self.ask_to_end(node, script)).collect()
    }

    fn ask<T: FromRedisValue + Send + 'static>(
        self: &Arc<Self>,
        node: usize,
        lane: Lane,
        script: impl NodeScript,
    ) -> Ask<T> {
        let call = Arc::clone(self);
        Ask::new(
            node,
            async move { call.node(node).run(lane, |run| call.invoke(script, run)).await },
        )
    }

    /// A request that ends a lease. A node that does not answer it owes it: an earlier request, not executed
    /// yet, may still be on its way to that node.
    fn ask_to_end(self: &Arc<Self>, node: usize, script: impl NodeScript) -> Ask<u8> {
        let call = Arc::clone(self);
        Ask::new(node, async move {
            let answer = call.node(node).run(Lane::Keep, |run| call.invoke(script, run)).await;
            if answer.is_err() {
                let lasts = call.claim.ttl + OWED;
                let owed = Arc::clone(&call);
                call.node(node).owe(lasts, move |run: &Arc<str>| owed.invoke(script, run));
            }
            answer
        })
    }

    fn nodes(&self) -> std::ops::Range<usize> {
        0..self.redlock.0.nodes.len()
    }

    fn node(&self, node: usize) -> &Node {
        &self.redlock.0.nodes[node]
    }

    fn invoke(&self, script: impl NodeScript, run: &Arc<str>) -> Step {
        let mark = &self.redlock.0.common.mark;
        script(&self.names, &self.claim, Member { mark, run, round: self.round })
    }

    /// Stores the token on the nodes that granted a smaller one.
    pub(super) async fn write_back(self: &Arc<Self>, win: &mut Win) {
        let token = win.token();
        let raise = move |names: &Names, claim: &Claim, member: Member<'_>| {
            scripts::raise(names, claim, token, member)
        };
        let asks = win.behind().iter().map(|node| self.ask(*node, Lane::Acquire, raise)).collect();
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
    pub(super) async fn retract(self: &Arc<Self>, round: &Round) -> Result<(), BackendError> {
        let (mut granted, mut asks) = (vec![], vec![]);
        for (node, has_granted) in round.may_hold() {
            let tombstone = if has_granted { Tombstone::Never } else { Tombstone::Always };
            asks.push(self.ask_to_end(node, move |names, claim, member| {
                scripts::retract(names, claim, tombstone, member)
            }));
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
