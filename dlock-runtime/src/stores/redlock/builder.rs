//! Connecting: the nodes, their common options, and the checks at the start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Client;

use super::answers::Answers;
use super::broadcast::Broadcast;
use super::gather::{every, gather};
use super::node::{Common, Node, NodeState};
use super::scripts::Greeting;
use super::{Inner, Redlock};
use crate::backend::validity_of;
use crate::error::BackendError;
use crate::stores::redis::RedisBuilder;
use crate::stores::redis::address::{self, Address};
use crate::stores::redis::server::Lane;
use crate::stores::shared::batcher::Batcher;
use crate::stores::shared::tombstones::Tombstones;

/// How long to wait for another process that declares the deployment new at the same moment.
const OTHERS: Duration = Duration::from_secs(2);

/// Options of [`Redlock`]; made by [`Redlock::builder`].
///
/// Every process that uses the same nodes should be given the same options.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `connect`"]
pub struct RedlockBuilder {
    node: RedisBuilder,
    node_timeout: Duration,
    max_lease: Duration,
    tolerance: Duration,
    bootstrap: bool,
}

impl RedlockBuilder {
    pub(super) fn new() -> Self {
        Self {
            node: RedisBuilder::new(),
            node_timeout: Duration::from_millis(500),
            max_lease: Duration::from_mins(3),
            tolerance: Duration::from_mins(1),
            bootstrap: false,
        }
    }

    /// The prefix of every key and channel in Redis; `dlock:` if not set.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.node = self.node.prefix(prefix);
        self
    }

    /// How long a node may take to answer a request before the call continues without it; 500 ms if not set. A request
    /// of an acquire, a renewal or a release gets a quarter of the lock's ttl at most. A majority that answers
    /// sooner does not wait for this limit.
    pub fn node_timeout(mut self, limit: Duration) -> Self {
        self.node_timeout = limit;
        self
    }

    /// How long making a connection may take; 1 s if not set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.node = self.node.connect_timeout(limit);
        self
    }

    /// The longest `ttl` and `min_hold`; 3 min if not set.
    ///
    /// A node that was restarted or emptied counts for nothing until the longest lease that it may have
    /// forgotten is over, so a larger value makes the deployment wait longer. A lock that is renewed needs no long
    /// ttl. The nodes remember the longest quarantine that any process has asked for.
    pub fn max_lease(mut self, longest: Duration) -> Self {
        self.max_lease = longest;
        self
    }

    /// How far the clocks of nodes and clients may differ; 1 min if not set.
    ///
    /// Leases do not depend on it. Tokens depend on it only for a key whose last token nobody remembers: an hour after
    /// the key was last locked, or after nodes were emptied. A client whose clock differs by more does no harm: the
    /// nodes ignore its proposals. A node that may have forgotten tokens counts for nothing for at least three
    /// times this long.
    pub fn clock_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Declares that this deployment is brand-new: its nodes count at once.
    ///
    /// This takes effect only if all nodes can be reached and none of them has ever been used, because then nothing
    /// can have been forgotten. On nodes that are in use it changes nothing. Remove it after the first
    /// start anyway: nodes that keep nothing on disk look brand-new after *all* of them have been restarted.
    pub fn bootstrap(mut self, is_new: bool) -> Self {
        self.bootstrap = is_new;
        self
    }

    /// An additional certificate (PEM) to trust besides the system's, for `rediss://` with a private
    /// authority.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.node = self.node.root_certificate(pem);
        self
    }

    /// Connects to nodes by their URLs; see [`Redlock::connect`].
    ///
    /// # Errors
    /// Those of [`Redlock::connect`], and a prefix that contains a brace.
    ///
    /// # Cancel safety
    /// Cancel safe: connections that are being made are closed.
    pub async fn connect<U: AsRef<str>>(
        self,
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Redlock, BackendError> {
        let server = |url: &str| self.node.server(url, address::options(url));
        let servers = urls.into_iter().map(|url| server(url.as_ref()));
        let servers = servers.collect::<Result<_, _>>()?;
        self.start(servers).await
    }

    /// Connects to the nodes of a URL `redlock://[user:password@]host:port,host:port,…[/db]`, or
    /// `redlocks://…` over TLS. Each node may have its own credentials; nodes without credentials use those of the
    /// first node. The option `?bootstrap=true` is [`bootstrap`](Self::bootstrap).
    ///
    /// # Errors
    /// Those of [`Redlock::connect`].
    ///
    /// # Cancel safety
    /// Cancel safe: connections that are being made are closed.
    pub async fn connect_url(mut self, url: &str) -> Result<Redlock, BackendError> {
        let mut address = Address::parse(url)?;
        match address.options.take("bootstrap").as_deref() {
            None => {}
            Some("true") => self.bootstrap = true,
            Some("false") => self.bootstrap = false,
            Some(_) => return Err(address::unreadable("`bootstrap` is true or false")),
        }
        address.options.nothing_left("`bootstrap`")?;
        let servers = self.node.quorum(&mut address)?;
        self.start(servers).await
    }

    async fn start(self, servers: Vec<Client>) -> Result<Redlock, BackendError> {
        check(&servers)?;
        let prefix = self.node.checked_prefix()?.to_owned();
        let common = Common::new(format!("{prefix}mark"), self.tolerance, self.quarantine());
        let common = Arc::new(common);
        let node = |server| Arc::new(Node::new(self.node.node(server), Arc::clone(&common)));
        let nodes: Arc<[_]> = servers.into_iter().map(node).collect();
        let broadcast = |lane| Batcher::new(Broadcast::new(Arc::clone(&nodes), lane));
        let inner = Inner {
            acquires: broadcast(Lane::Acquire),
            keeps: broadcast(Lane::Keep),
            nodes,
            prefix,
            node_timeout: self.node_timeout,
            max_lease: self.max_lease,
            tombstones: Tombstones::default(),
            late_renewals: Tombstones::default(),
        };
        let redlock = Redlock(Arc::new(inner));
        redlock.enter(self.bootstrap, self.node.limits().connect).await?;
        Ok(redlock)
    }

    /// The quarantine lasts until every lease that a node may have forgotten is over, and until every token that it
    /// could grant is larger than all earlier ones. An earlier token is ahead of the clock of the node that granted it
    /// by one tolerance at most, a new token is behind the clock of its node by one tolerance at most, and
    /// these two clocks differ by one tolerance at most. The 500 ms are a margin.
    fn quarantine(&self) -> Duration {
        let drift = self.max_lease.saturating_sub(validity_of(self.max_lease));
        (self.max_lease + drift).max(self.tolerance * 3) + Duration::from_millis(500)
    }
}

/// With fewer than three nodes, a majority is all of them. A node that is counted twice is worse than none.
fn check(servers: &[Client]) -> Result<(), BackendError> {
    let problem = match servers {
        [] | [_] | [_, _] => {
            "Redlock needs at least three independent nodes, better five; for one server there is redis://".to_owned()
        }
        _ => {
            let shown = servers.iter().map(|server| server.get_connection_info().addr().to_string());
            let shown: Vec<_> = shown.collect();
            match shown.iter().enumerate().find(|(at, node)| shown[..*at].contains(node)) {
                Some((_, twice)) => format!("the node {twice} is named twice"),
                None => return Ok(()),
            }
        }
    };
    Err(BackendError::permanent(problem).not_sent())
}

impl Redlock {
    /// Greets all nodes. A majority of them has to answer.
    async fn enter(&self, bootstrap: bool, limit: Duration) -> Result<(), BackendError> {
        let greeting = if bootstrap { self.look(limit).await? } else { Greeting::Enter };
        let states = self.greet(greeting, limit).await?;
        let counting = states.iter().filter(|state| **state == NodeState::Counts).count();
        if counting < self.majority() {
            tracing::warn!(
                target: "dlock",
                counting,
                nodes = self.0.nodes.len(),
                "too few nodes count for a majority yet: no lock can be acquired"
            );
        }
        self.refuse_eviction(limit).await
    }

    /// Finds out whether all nodes are new. If only some are, another process may be declaring them new at this
    /// moment, so this looks again for a while.
    async fn look(&self, limit: Duration) -> Result<Greeting, BackendError> {
        let began = Instant::now();
        loop {
            let states = self.greet(Greeting::Look, limit).await?;
            let is_unmarked = |state: &&NodeState| **state == NodeState::Unmarked;
            let unmarked = states.iter().filter(is_unmarked).count();
            if unmarked == self.0.nodes.len() {
                return Ok(Greeting::Found);
            }
            if unmarked == 0 {
                return Ok(Greeting::Enter);
            }
            if began.elapsed() > OTHERS {
                tracing::warn!(
                    target: "dlock",
                    "not a brand-new deployment: a node has been used before or cannot be reached; new nodes count after their quarantine"
                );
                return Ok(Greeting::Enter);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn greet(
        &self,
        greeting: Greeting,
        limit: Duration,
    ) -> Result<Vec<NodeState>, BackendError> {
        let asks = self.each(|node| async move { node.greet(greeting).await });
        self.majority_of(gather(asks, limit, every).await)
    }

    /// Fails as soon as a node says that it evicts keys. A node that does not answer is not checked.
    async fn refuse_eviction(&self, limit: Duration) -> Result<(), BackendError> {
        let asks = self.each(|node| async move { node.refuse_eviction().await });
        let is_refused =
            |answers: &Answers<()>| answers.errors().any(|error| !error.is_transient());
        let answers = gather(asks, limit, is_refused).await;
        let refused = answers.into_errors().find(|error| !error.is_transient());
        refused.map_or(Ok(()), Err)
    }
}
