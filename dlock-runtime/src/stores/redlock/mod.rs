//! Leases on a majority of independent Redis servers: Redlock, with fencing tokens.
//!
//! The algorithm is that of the Redis documentation, [*Distributed Locks with Redis*]: all nodes are asked for the lock
//! at once, a majority of all nodes grants it, and it is valid for the ttl less the time that the
//! acquire took and an allowance for clock drift. This module adds what that page leaves to others:
//!
//! - **Tokens.** The client proposes a token, each node answers the larger of the proposal and its last token
//!   plus one, and the largest answer is the token. The hold counts once a majority of all nodes (`n / 2 + 1` of `n`)
//!   has stored exactly this token. A node is counted only if it granted the lock in this round, its answer was heard
//!   before the largest was determined, and either that answer was this very token, or the node has confirmed that
//!   it raised its token to this one while it still showed this owner in this round. Nodes mostly agree, so the hold
//!   mostly counts at once; otherwise it takes one more round trip. So every later majority has a node that
//!   answers a larger token.
//! - **Restarts.** Each node has a mark of the server's run. A node that was restarted or emptied counts
//!   towards no majority until every lease and token that it may have forgotten is over.
//! - **Late requests.** The rounds of an acquire are numbered. A round that was abandoned cannot be granted later.
//!
//! Each operation on a node is a script, as on a [single server](crate::stores::redis). Requests of independent callers
//! that are ready while one is in flight go out together, and in the same order to all nodes.
//!
//! [*Distributed Locks with Redis*]: https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/

mod acquire;
mod answers;
mod broadcast;
mod builder;
mod call;
#[cfg(test)]
mod enumeration;
mod failures;
mod gather;
mod gathering;
mod node;
mod scripts;
#[cfg(test)]
mod simulation;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::FromRedisValue;

use self::answers::Answers;
use self::broadcast::Broadcast;
pub use self::builder::RedlockBuilder;
use self::call::Call;
use self::gather::{Ask, answered, every, gather};
use self::node::Node;
use self::watch::QuorumWatch;
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, MAX_LISTED, Release, Released,
    Renewal, Watch, validity_of,
};
use crate::error::BackendError;
use crate::key::LockKey;
#[cfg(test)]
use crate::lock_table::majority::model;
use crate::lock_table::majority::round::{self, majority};
use crate::stores::redis::names::Names;
use crate::stores::redis::scripts::{InspectAnswer, inspect, state};
use crate::stores::redis::server::Lane;
use crate::stores::redis::step::Step;
use crate::stores::shared::batcher::Batcher;
use crate::stores::shared::tombstones::Tombstones;

/// How long a node may take to scan its keys.
const SCAN_LIMIT: Duration = Duration::from_secs(10);

/// Leases on a majority of independent Redis servers (5.0 or newer) without replicas.
///
/// It works as long as a majority of its nodes does. The guide to Redlock describes what it does not
/// promise, how to configure the nodes, and how it was checked.
///
/// Each node has two connections for requests and one for messages. Clones share them.
#[derive(Clone)]
pub struct Redlock(Arc<Inner>);

struct Inner {
    nodes: Arc<[Arc<Node>]>,
    acquires: Batcher<Broadcast>,
    keeps: Batcher<Broadcast>,
    prefix: String,
    node_timeout: Duration,
    max_lease: Duration,
    tombstones: Tombstones,
    /// Claims of which a node has not answered a renewal. It may execute the renewal after the release, and a renewal
    /// restores a lock that a node does not have.
    late_renewals: Tombstones,
}

impl Redlock {
    /// Connects to nodes by their URLs, `redis://…` or (with the feature `redis-tls`) `rediss://…`, each
    /// with its own credentials.
    ///
    /// Make the first connection to a brand-new deployment with [`RedlockBuilder::bootstrap`]. Without
    /// it, new nodes count for nothing until everything that they might have forgotten is over.
    ///
    /// # Errors
    /// There are fewer than three nodes, a node is named twice, a URL is invalid, fewer nodes than a majority can be
    /// reached, or the `maxmemory-policy` of a node evicts keys, and locks with them. No error shows a
    /// password.
    ///
    /// # Cancel safety
    /// Cancel safe: connections that are being made are closed.
    pub async fn connect<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, BackendError> {
        Self::builder().connect(urls).await
    }

    pub(crate) async fn connect_url(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect_url(url).await
    }

    /// Options to set before connecting.
    pub fn builder() -> RedlockBuilder {
        RedlockBuilder::new()
    }

    fn broadcast(&self, lane: Lane) -> &Batcher<Broadcast> {
        match lane {
            Lane::Acquire => &self.0.acquires,
            Lane::Keep => &self.0.keeps,
        }
    }

    fn majority(&self) -> usize {
        majority(self.0.nodes.len())
    }

    /// How long a node may take: well below the ttl, so that a silent node does not use it up.
    fn limit(&self, ttl: Duration) -> Duration {
        self.0.node_timeout.min(ttl / 4)
    }

    fn names(&self, key: &LockKey) -> Names {
        Names::new(&self.0.prefix, key)
    }

    /// A request to every node, without the number of a round.
    fn each<T, F>(&self, request: impl Fn(Arc<Node>) -> F) -> Vec<Ask<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        let nodes = self.0.nodes.iter().enumerate();
        nodes.map(|(number, node)| Ask::new(number, request(Arc::clone(node)))).collect()
    }

    /// A script for every node, without the number of a round.
    fn each_script<T: FromRedisValue + Send + 'static>(
        &self,
        script: impl Fn() -> Step,
    ) -> Vec<Ask<T>> {
        self.each(|node| {
            let script = script();
            async move { node.run(Lane::Keep, script).await }
        })
    }

    /// The answers, if a majority of all nodes has given one.
    fn majority_of<T>(&self, answers: Answers<T>) -> Result<Vec<T>, BackendError> {
        if answers.len() < self.majority() {
            return Err(self.no_majority(answers));
        }
        Ok(answers.into_parts().0)
    }

    /// The error of a call for which too few nodes count.
    fn no_majority<T>(&self, answers: Answers<T>) -> BackendError {
        let (_, failures) = answers.into_parts();
        failures.explain(&self.0.nodes)
    }

    /// The owner that a majority shows, for as long as a majority will show it.
    fn holder_of_majority(&self, mut seen: Vec<Holder>) -> Option<Holder> {
        seen.sort_by_key(|holder| std::cmp::Reverse(holder.expires_in));
        seen.iter().find_map(|candidate| {
            let same: Vec<_> = seen.iter().filter(|other| other.owner == candidate.owner).collect();
            let token = same.iter().map(|holder| holder.token).max()?;
            let last = same.get(self.majority() - 1)?;
            let holder = Holder::new(candidate.owner, token, last.expires_in);
            let revoked = same.iter().any(|holder| holder.revoked);
            Some(holder.with_client_info(candidate.client_info.clone()).with_revoked(revoked))
        })
    }
}

impl AsyncBackend for Redlock {
    fn kind(&self) -> &'static str {
        "redlock"
    }

    fn capabilities(&self) -> Capabilities {
        let able = Capabilities::REDLOCK;
        able.with_ttl(able.min_ttl, self.0.max_lease)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        self.acquire_in_rounds(claim).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let call = Call::new(self, claim);
        let answers = call.renew().await;
        if answers.len() < self.0.nodes.len() {
            self.0.late_renewals.note(claim);
        }
        let not_held = answers.count(|answer| *answer == 0);
        if answers.count(|answer| *answer == 1) >= self.majority() {
            Ok(Renewal::Renewed { validity: validity_of(claim.ttl) })
        } else if self.0.nodes.len() - not_held < self.majority() {
            Ok(Renewal::NotHeld)
        } else {
            Err(self.no_majority(answers))
        }
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.0.tombstones.note(claim);
        }
        let late_acquire = release.late_acquire || self.0.late_renewals.has(claim);
        let release = Release { late_acquire, ..release };
        let call = Call::new(self, claim);
        let answers = call.release(release).await;
        let not_held = answers.count(|answer| *answer == 0);
        self.majority_of(answers)?;
        // Nodes that are silent, or may have forgotten the lock, may have been part of the majority that held it.
        if self.0.nodes.len() - not_held >= self.majority() {
            Ok(Released::Released)
        } else {
            Ok(Released::NotHeld)
        }
    }

    /// Listens to enough nodes that every majority includes one of them.
    async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        let channel = self.names(key).channel();
        let asks = self.each(|node| {
            let channel = channel.clone();
            async move { node.watch(channel).await }
        });
        let answers = gather(asks, self.0.node_timeout, answered(self.majority())).await;
        Ok(Box::new(QuorumWatch::new(self.majority_of(answers)?)))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let names = self.names(key);
        let asks = self.each_script::<InspectAnswer>(|| inspect(&names));
        let answers = gather(asks, self.0.node_timeout, answered(self.majority())).await;
        let states = self.majority_of(answers)?.into_iter();
        let seen = states.flat_map(|answer| state(key.clone(), answer).holders).collect();
        Ok(self.holder_of_majority(seen))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let asks = self.each(|node| {
            let (names, key_prefix) = (self.0.prefix.clone(), prefix.to_owned());
            async move { node.keys(&names, &key_prefix).await }
        });
        let answers = gather(asks, SCAN_LIMIT, every).await;
        let keys: BTreeSet<_> = self.majority_of(answers)?.into_iter().flatten().collect();
        let mut states = vec![];
        for key in keys.into_iter().take(MAX_LISTED) {
            if let Some(holder) = self.inspect(&key).await? {
                states.push(LockState::new(key, vec![holder], vec![]));
            }
        }
        Ok(states)
    }

    /// Counts once a majority will not renew the hold, because no majority will renew it then.
    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        let Some(owner) = self.inspect(key).await?.and_then(|holder| holder.owner) else {
            return Ok(false);
        };
        let names = self.names(key);
        let asks = self.each_script::<usize>(|| scripts::bar(&names, &owner, self.0.max_lease));
        let answers = gather(asks, self.0.node_timeout, every).await;
        let barred: usize = answers.iter().map(|(_, barred)| *barred).sum();
        if barred < self.majority() {
            return Err(self.no_majority(answers));
        }
        Ok(true)
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let names = self.names(key);
        let longest = self.0.max_lease;
        let asks = self.each_script::<usize>(|| scripts::force_release(&names, longest));
        let answers = gather(asks, self.0.node_timeout, every).await;
        let ended: usize = self.majority_of(answers)?.into_iter().sum();
        Ok(ended > 0)
    }
}

impl fmt::Debug for Redlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.0.nodes.iter().map(|node| node.address()).collect();
        f.debug_struct("Redlock").field("nodes", &nodes).finish_non_exhaustive()
    }
}
