//! Leases on a majority of independent Redis servers: Redlock, with fencing tokens.
//!
//! The algorithm is that of the Redis documentation, [*Distributed Locks with Redis*]: the lock is asked
//! for on all nodes at once, a majority of them grants it, and it is valid for the ttl less the time that
//! the asking took and an allowance for the drift of clocks. What that page leaves to others is done here:
//!
//! - **Tokens.** The client proposes one, each node answers the larger of the proposal and its last token
//!   plus one, and the largest answer is the token. It counts only when a majority *of those who have
//!   answered* has stored that very token while it showed this owner: at once when they agree, as they
//!   mostly do, and after one more round trip otherwise. So a later majority has a node that answers more.
//! - **Delayed restarts.** A node carries a mark of the server's run. A node that was restarted or emptied
//!   counts towards no majority until every lease and token that it may have forgotten is over.
//! - **Late requests.** The tries of one acquire are numbered; what is given up is given up for good.
//!
//! Each node executes the scripts of a [single server](crate::stores::redis), told in addition which round it is,
//! which token is proposed and which run of the server was greeted.
//!
//! [*Distributed Locks with Redis*]: https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/

mod builder;
#[cfg(test)]
mod enumeration;
mod gather;
#[cfg(test)]
mod model;
mod node;
mod round;
#[cfg(test)]
mod simulation;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use redis::{FromRedisValue, ScriptInvocation};

pub use self::builder::RedlockBuilder;
use self::gather::{Ask, GRACE, ask, gather};
use self::node::{Common, Node};
use self::round::{Reply, Round, Verdict, Win, majority};
use self::watch::QuorumWatch;
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, MAX_LISTED, Release, Released,
    Renewal, Watch, validity_of,
};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::redis::names::Names;
use crate::stores::redis::scripts::{
    self, Acquired, AcquiredAnswer, InspectAnswer, Member, Proposal, Tombstone,
};
use crate::stores::redis::server::Lane;
use crate::stores::shared::tombstones::Tombstones;
use crate::token::FencingToken;

/// How often a lock that nobody has is tried for again before it is called busy: several may try at
/// once, so that none of them finds a majority.
const ROUNDS: u32 = 8;

/// Between two such rounds, at most.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a node may take to look through its keys.
const SCAN_LIMIT: Duration = Duration::from_secs(10);

/// How much longer than a ttl a node owes a release that it has not answered.
const OWED: Duration = Duration::from_mins(1);

/// Numbers the tries of this process: a late request of an earlier one is known by its number. One
/// sequence for all, since an owner's claim may be tried for by any clone.
static ROUND: AtomicU64 = AtomicU64::new(1);

/// Leases on a majority of independent Redis servers (5.0 or newer), without replicas of their own.
///
/// It stands as long as a majority of its nodes does. What it does not promise, what a node must be
/// configured for and how it was checked is told in the guide to Redlock.
///
/// Each node has one connection for requests and one for messages. Clones share them.
#[derive(Clone)]
pub struct Redlock(Arc<Inner>);

struct Inner {
    nodes: Vec<Arc<Node>>,
    common: Arc<Common>,
    prefix: String,
    node_timeout: Duration,
    max_lease: Duration,
    tombstones: Tombstones,
}

impl Redlock {
    /// Connects to nodes by their URLs, `redis://…` or (with the feature `redis-tls`) `rediss://…`, each
    /// with its own credentials.
    ///
    /// The first connection to a brand-new deployment is made with [`RedlockBuilder::bootstrap`]; without
    /// it, new nodes count for nothing until what they might have forgotten is over.
    ///
    /// # Errors
    /// Fewer than three nodes or one named twice, a URL that cannot be read, fewer than a majority that
    /// can be reached, or one whose `maxmemory-policy` evicts keys, and with them locks. No error shows a
    /// password.
    ///
    /// # Cancel safety
    /// Cancel safe: connections under way are closed.
    pub async fn connect<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, BackendError> {
        Self::builder().connect(urls).await
    }

    pub(crate) async fn connect_url(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect_url(url).await
    }

    /// Options before connecting.
    pub fn builder() -> RedlockBuilder {
        RedlockBuilder::new()
    }

    fn majority(&self) -> usize {
        majority(self.0.nodes.len())
    }

    /// How long a node may take: well under the ttl, so that a silent one does not eat it up.
    fn limit(&self, ttl: Duration) -> Duration {
        self.0.node_timeout.min(ttl / 4)
    }

    /// Asks all nodes once. What is not won is taken back, on those who have not answered too.
    async fn one_round(&self, claim: &Claim) -> Result<Tried, BackendError> {
        let call = Call::new(self, claim);
        let proposal = Proposal { token: by_this_clock(), tolerance: self.0.common.tolerance };
        let mut round = Round::new(self.0.nodes.len());
        let mut failures = Failures::default();
        let asks = call.each(Lane::Acquire, move |names, claim, member| {
            scripts::acquire(names, claim, Some((member, proposal)))
        });
        failures.silent = gather(asks, call.limit, |node, answer: Result<AcquiredAnswer, _>| {
            let answer = answer.map(Acquired::from);
            round.hear(node, self.reply(node, answer, &mut failures))
        })
        .await;
        let verdict = round.verdict();
        if let Verdict::Won(mut win) = verdict {
            if !win.is_stored() {
                call.write_back(&mut win).await;
            }
            if win.is_stored() {
                return Ok(Tried::Granted(win.token()));
            }
            call.retract(&round).await?;
            return Err(BackendError::transient(
                "redlock: the fencing token could not be stored on a majority of the nodes",
            ));
        }
        call.retract(&round).await?;
        match verdict {
            Verdict::Busy { expires_in } => Ok(Tried::Busy(expires_in)),
            Verdict::Split { expires_in } => Ok(Tried::Split(expires_in)),
            Verdict::TooFew | Verdict::Won(_) => Err(self.too_few(failures)),
        }
    }

    /// What an answer means for the round.
    fn reply(
        &self,
        node: usize,
        answer: Result<Acquired, BackendError>,
        failures: &mut Failures,
    ) -> Reply {
        match answer {
            Ok(Acquired::Granted(token)) => Reply::Granted(token),
            Ok(Acquired::Busy { left, owner }) => Reply::Busy { owner, left },
            // A node of several has no groups.
            Ok(Acquired::GivenUp | Acquired::Grouped) => Reply::Absent,
            Ok(Acquired::Quarantined(left)) => {
                failures.quarantined(self.0.nodes[node].address(), left);
                Reply::Absent
            }
            Ok(Acquired::Unmarked) => {
                self.0.nodes[node].forget_greeting();
                failures.quarantined(self.0.nodes[node].address(), Duration::ZERO);
                Reply::Absent
            }
            Err(error) => {
                let reply = if error.may_have_been_sent() { Reply::Silent } else { Reply::Absent };
                failures.failed(error);
                reply
            }
        }
    }

    /// The owner that a majority shows, for as long as a majority will.
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

    /// A request to every node, without a number.
    fn all<T, F>(&self, request: impl Fn(Arc<Node>) -> F) -> Vec<Ask<T>>
    where
        F: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        let nodes = self.0.nodes.iter().enumerate();
        nodes.map(|(number, node)| ask(number, request(Arc::clone(node)))).collect()
    }

    fn names(&self, key: &LockKey) -> Names {
        Names::new(&self.0.prefix, key)
    }

    fn too_few(&self, failures: Failures) -> BackendError {
        failures.explain(&self.0.nodes)
    }
}

/// What came of a round.
enum Tried {
    Granted(FencingToken),
    Busy(Option<Duration>),
    Split(Option<Duration>),
}

/// A script as one node gets it.
trait NodeScript:
    Fn(&Names, &Claim, Member<'_>) -> ScriptInvocation<'static> + Copy + Send + Sync + 'static
{
}

impl<F> NodeScript for F where
    F: Fn(&Names, &Claim, Member<'_>) -> ScriptInvocation<'static> + Copy + Send + Sync + 'static
{
}

/// One numbered request to several nodes.
struct Call {
    redlock: Redlock,
    claim: Claim,
    names: Names,
    round: u64,
    limit: Duration,
}

impl Call {
    fn new(redlock: &Redlock, claim: &Claim) -> Arc<Self> {
        Arc::new(Self {
            redlock: redlock.clone(),
            claim: claim.clone(),
            names: redlock.names(&claim.key),
            round: ROUND.fetch_add(1, Ordering::Relaxed),
            limit: redlock.limit(claim.ttl),
        })
    }

    fn node(&self, node: usize) -> &Node {
        &self.redlock.0.nodes[node]
    }

    /// A request to every node.
    fn each<T: FromRedisValue + Send>(
        self: &Arc<Self>,
        lane: Lane,
        script: impl NodeScript,
    ) -> Vec<Ask<T>> {
        (0..self.redlock.0.nodes.len()).map(|node| self.ask(node, lane, script)).collect()
    }

    fn ask<T: FromRedisValue + Send>(
        self: &Arc<Self>,
        node: usize,
        lane: Lane,
        script: impl NodeScript,
    ) -> Ask<T> {
        let call = Arc::clone(self);
        ask(node, async move { call.node(node).run(lane, |run| call.invoke(script, run)).await })
    }

    /// A request that ends a lease. A node that does not answer it owes it: it may have another request
    /// before it that it has not executed yet.
    fn ask_to_end(self: &Arc<Self>, node: usize, script: impl NodeScript) -> Ask<u8> {
        let call = Arc::clone(self);
        ask(node, async move {
            let answer = call.node(node).run(Lane::Keep, |run| call.invoke(script, run)).await;
            if answer.is_err() {
                let lasts = call.claim.ttl + OWED;
                let owed = Arc::clone(&call);
                call.node(node).owe(lasts, move |run: &str| owed.invoke(script, run));
            }
            answer
        })
    }

    fn invoke(&self, script: impl NodeScript, run: &str) -> ScriptInvocation<'static> {
        let mark = &self.redlock.0.common.mark;
        script(&self.names, &self.claim, Member { mark, run, round: self.round })
    }

    /// Has those store the token who have a smaller one.
    async fn write_back(self: &Arc<Self>, win: &mut Win) {
        let token = win.token();
        let raise = move |names: &Names, claim: &Claim, member: Member<'_>| {
            scripts::raise(names, claim, token, member)
        };
        let asks = win.behind().iter().map(|node| self.ask(*node, Lane::Acquire, raise)).collect();
        gather(asks, self.limit, |_, stored| matches!(stored, Ok(1_u8)) && win.wrote()).await;
    }

    /// Takes back what a round may have been granted.
    ///
    /// Those who have granted must confirm it, or the caller has to see to it; those who have not answered
    /// are told not to grant any more.
    async fn retract(self: &Arc<Self>, round: &Round) -> Result<(), BackendError> {
        let (mut sure, mut asks) = (vec![], vec![]);
        for (node, granted) in round.may_hold() {
            let tombstone = if granted { Tombstone::Never } else { Tombstone::Always };
            asks.push(self.ask_to_end(node, move |names, claim, member| {
                scripts::retract(names, claim, tombstone, member)
            }));
            if granted {
                sure.push(node);
            }
        }
        let limit = if sure.is_empty() { GRACE } else { self.limit };
        gather(asks, limit, |node, answer| {
            if answer.is_ok() {
                sure.retain(|other| *other != node);
            }
            sure.is_empty()
        })
        .await;
        if sure.is_empty() {
            return Ok(());
        }
        Err(BackendError::transient(format!(
            "redlock: {} of the nodes did not confirm in time that a failed try was taken back",
            sure.len()
        )))
    }
}

/// Why nodes cannot be counted.
#[derive(Default)]
struct Failures {
    silent: Vec<usize>,
    quarantined: Vec<(String, Duration)>,
    errors: Vec<BackendError>,
}

impl Failures {
    fn quarantined(&mut self, node: &str, left: Duration) {
        self.quarantined.push((node.to_owned(), left));
    }

    fn failed(&mut self, error: BackendError) {
        self.errors.push(error);
    }

    fn explain(self, nodes: &[Arc<Node>]) -> BackendError {
        let (wanted, all) = (majority(nodes.len()), nodes.len());
        let mut parts = vec![format!("redlock: no majority ({wanted} of {all} nodes)")];
        let silent = |node: &usize| format!("{} did not answer in time", nodes[*node].address());
        parts.extend(self.silent.iter().map(silent));
        parts.extend(self.errors.iter().map(ToString::to_string));
        parts.extend(self.quarantined.iter().map(|(node, left)| {
            let left = left.as_secs() + 1;
            format!(
                "{node} may have forgotten locks (restarted, emptied or new) and counts in {left} s"
            )
        }));
        if self.quarantined.len() == all {
            parts.push("declare a brand-new deployment once with `?bootstrap=true`".to_owned());
        }
        let message = parts.join("; ");
        let permanent = self.errors.iter().filter(|error| !error.is_transient()).count();
        if all - permanent < wanted {
            BackendError::permanent(message)
        } else {
            BackendError::transient(message)
        }
    }
}

/// The proposed token: this machine's clock, in microseconds.
fn by_this_clock() -> FencingToken {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    FencingToken::new(u64::try_from(now.as_micros()).unwrap_or(0))
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
        let began = Instant::now();
        let mut round = 1;
        loop {
            let tried_after = began.elapsed();
            match self.one_round(claim).await? {
                Tried::Granted(token) => {
                    // The lease began with this round, the caller counts from before the first one.
                    return Ok(Attempt::granted(token, tried_after + validity_of(claim.ttl)));
                }
                Tried::Split(expires_in) if round == ROUNDS => {
                    return Ok(Attempt::busy(expires_in));
                }
                Tried::Busy(expires_in) => return Ok(Attempt::busy(expires_in)),
                Tried::Split(_) => {}
            }
            round += 1;
            tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.05..=1.0))).await;
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let call = Call::new(self, claim);
        let (mut renewed, mut not_held) = (0, 0);
        let mut failures = Failures::default();
        let nodes = self.0.nodes.len();
        let asks = call
            .each(Lane::Keep, |names, claim, member| scripts::renew(names, claim, Some(member)));
        failures.silent = gather(asks, call.limit, |_, answer| {
            match answer {
                Ok(1_u8) => renewed += 1,
                Ok(0) => not_held += 1,
                Ok(_) => {}
                Err(error) => failures.failed(error),
            }
            renewed >= self.majority()
        })
        .await;
        if renewed >= self.majority() {
            Ok(Renewal::Renewed { validity: validity_of(claim.ttl) })
        } else if nodes - not_held < self.majority() {
            Ok(Renewal::NotHeld)
        } else {
            Err(self.too_few(failures))
        }
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.0.tombstones.note(claim);
        }
        let call = Call::new(self, claim);
        let (mut released, mut not_held, mut uncounted) = (0, 0, 0);
        let mut failures = Failures::default();
        let asks = (0..self.0.nodes.len()).map(|node| {
            call.ask_to_end(node, move |names, claim, member| {
                scripts::release(names, claim, release, Some(member))
            })
        });
        let asks = asks.collect();
        failures.silent = gather(asks, call.limit, |_, answer| {
            match answer {
                Ok(1) => released += 1,
                Ok(0) => not_held += 1,
                Ok(_) => uncounted += 1,
                Err(error) => failures.failed(error),
            }
            released >= self.majority()
        })
        .await;
        if released + not_held + uncounted < self.majority() {
            return Err(self.too_few(failures));
        }
        // Those who are silent, or may have forgotten it, may be the rest of the majority that had it.
        if self.0.nodes.len() - not_held >= self.majority() {
            Ok(Released::Released)
        } else {
            Ok(Released::NotHeld)
        }
    }

    /// Stands when so many nodes are listened to that every majority has one of them.
    async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        let channel = self.names(key).channel();
        let mut watches = vec![];
        let mut failures = Failures::default();
        let asks = self.all(|node| {
            let channel = channel.clone();
            async move { node.watch(channel).await }
        });
        failures.silent = gather(asks, self.0.node_timeout, |_, watch| {
            match watch {
                Ok(watch) => watches.push(watch),
                Err(error) => failures.failed(error),
            }
            watches.len() >= self.majority()
        })
        .await;
        if watches.len() < self.majority() {
            return Err(self.too_few(failures));
        }
        Ok(Box::new(QuorumWatch::new(watches)))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let names = Arc::new(self.names(key));
        let (mut seen, mut answered) = (vec![], 0);
        let mut failures = Failures::default();
        let asks = self.all(|node| {
            let names = Arc::clone(&names);
            async move { node.run(Lane::Keep, |_| scripts::inspect(&names)).await }
        });
        failures.silent =
            gather(asks, self.0.node_timeout, |_, answer: Result<InspectAnswer, _>| {
                match answer {
                    Ok(state) => {
                        answered += 1;
                        seen.extend(scripts::state(key.clone(), state).holders);
                    }
                    Err(error) => failures.failed(error),
                }
                answered >= self.majority()
            })
            .await;
        if answered < self.majority() {
            return Err(self.too_few(failures));
        }
        Ok(self.holder_of_majority(seen))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let (mut keys, mut answered) = (BTreeSet::new(), 0);
        let mut failures = Failures::default();
        let (names, key_prefix) = (self.0.prefix.clone(), prefix.to_owned());
        let asks = self.all(|node| {
            let (names, key_prefix) = (names.clone(), key_prefix.clone());
            async move { node.keys(&names, &key_prefix).await }
        });
        failures.silent = gather(asks, SCAN_LIMIT, |_, answer: Result<BTreeSet<LockKey>, _>| {
            match answer {
                Ok(some) => {
                    answered += 1;
                    keys.extend(some);
                }
                Err(error) => failures.failed(error),
            }
            false
        })
        .await;
        if answered < self.majority() {
            return Err(self.too_few(failures));
        }
        let mut states = vec![];
        for key in keys.into_iter().take(MAX_LISTED) {
            if let Some(holder) = self.inspect(&key).await? {
                states.push(LockState::new(key, vec![holder], vec![]));
            }
        }
        Ok(states)
    }

    /// Counts when a majority will not renew the hold: no majority will then.
    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        let Some(owner) = self.inspect(key).await?.and_then(|holder| holder.owner) else {
            return Ok(false);
        };
        let names = Arc::new(self.names(key));
        let longest = self.0.max_lease;
        let mut barred = 0;
        let mut failures = Failures::default();
        let asks = self.all(|node| {
            let names = Arc::clone(&names);
            async move { node.run(Lane::Keep, |_| scripts::bar(&names, &owner, longest)).await }
        });
        failures.silent = gather(asks, self.0.node_timeout, |_, answer: Result<usize, _>| {
            match answer {
                Ok(one) => barred += one,
                Err(error) => failures.failed(error),
            }
            false
        })
        .await;
        if barred < self.majority() {
            return Err(self.too_few(failures));
        }
        Ok(true)
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let names = Arc::new(self.names(key));
        let longest = Some(self.0.max_lease);
        let (mut ended, mut answered) = (0, 0);
        let mut failures = Failures::default();
        let asks = self.all(|node| {
            let names = Arc::clone(&names);
            async move { node.run(Lane::Keep, |_| scripts::force_release(&names, longest)).await }
        });
        failures.silent = gather(asks, self.0.node_timeout, |_, answer: Result<usize, _>| {
            match answer {
                Ok(one) => {
                    answered += 1;
                    ended += one;
                }
                Err(error) => failures.failed(error),
            }
            false
        })
        .await;
        if answered < self.majority() {
            return Err(self.too_few(failures));
        }
        Ok(ended > 0)
    }
}

impl fmt::Debug for Redlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.0.nodes.iter().map(|node| node.address()).collect();
        f.debug_struct("Redlock").field("nodes", &nodes).finish_non_exhaustive()
    }
}
