//! A Cluster: finds the node that has a slot, and follows redirections.
//!
//! Each node has its own connections and timeouts, so one node never delays a request to another. To learn
//! which node has which slot, several nodes are asked in quick succession, and the first answer counts.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Shared, try_join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::copies::Copies;
use super::failure::Hint;
use super::link::Limits;
use super::requests::Answered;
use super::server::{Lane, Server};
use super::slots::{self, Assigned, Masters, Slot};
use super::step::Step;
use super::topology::Template;
use crate::backend::MAX_LISTED;
use crate::error::BackendError;
use crate::key::LockKey;

/// How often a request is redirected or retried before the caller gets the error.
const REDIRECTIONS: u32 = 5;

/// The pause before a request is retried while the Cluster is changing. Grows with each retry.
const PAUSE: Duration = Duration::from_millis(20);

/// After this time without an answer, another node is asked as well.
const HEDGE: Duration = Duration::from_millis(100);

/// The slots are not refreshed more often than this, unless a slot has no known master.
const REST: Duration = Duration::from_millis(200);

pub(in crate::stores) struct Cluster {
    template: Template,
    /// The nodes that the URL names.
    seeds: Vec<Arc<Server>>,
    limits: Limits,
    is_copied: bool,
    known: Mutex<Known>,
    /// Counts up to select the next node to listen to.
    turn: AtomicUsize,
}

#[derive(Default)]
struct Known {
    /// By host and port.
    nodes: HashMap<String, Arc<Server>>,
    masters: Masters<Arc<Server>>,
    asked: Option<Instant>,
    /// The refresh in progress. Callers share it, and a caller that is dropped does not cancel it.
    refreshing: Option<Refreshing>,
}

type Refreshing = Shared<BoxFuture<'static, Result<(), Arc<BackendError>>>>;

impl Cluster {
    pub(super) fn new(
        template: Template,
        seeds: Vec<Server>,
        limits: Limits,
        copied: bool,
    ) -> Self {
        let seeds: Vec<_> = seeds.into_iter().map(Arc::new).collect();
        let nodes = seeds.iter().map(|seed| (seed.address().to_owned(), Arc::clone(seed)));
        let known = Known { nodes: nodes.collect(), ..Known::default() };
        Self {
            template,
            seeds,
            limits,
            is_copied: copied,
            known: Mutex::new(known),
            turn: AtomicUsize::new(0),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// The hosts and ports that the URL names.
    pub(super) fn address(&self) -> String {
        let seeds: Vec<_> = self.seeds.iter().map(|seed| seed.address()).collect();
        seeds.join(",")
    }

    /// Sends a request to the master that has the slot of this name.
    pub(super) async fn send(
        self: &Arc<Self>,
        name: &str,
        lane: Lane,
        mut step: Step,
        copies: Option<Copies>,
    ) -> Result<Answered, BackendError> {
        let slot = Slot::for_key(name);
        step.slot = Some(slot);
        let mut asked: Option<Arc<Server>> = None;
        let mut was_resent = false;
        for sent_on in 0.. {
            let (server, answer) = if let Some(server) = asked.take() {
                let answer = server.ask(lane, step.clone(), copies).await;
                (server, answer)
            } else {
                let server = self.master(slot).await?;
                let answer = server.send(lane, step.clone(), copies).await;
                (server, answer)
            };
            let failed = match answer {
                Ok(answered) => {
                    let was_resent = was_resent || answered.was_resent;
                    return Ok(Answered { was_resent, ..answered });
                }
                Err(failed) => failed,
            };
            was_resent |= failed.was_resent;
            if failed.hint == Hint::Elsewhere {
                self.refresh_soon();
            }
            if sent_on == REDIRECTIONS {
                return Err(failed.error);
            }
            match &failed.hint {
                Hint::Moved(address) => {
                    let node = self.node(address, &server)?;
                    self.known().masters.assign([slot], &node);
                    self.refresh_soon();
                }
                Hint::Ask(address) => asked = Some(self.node(address, &server)?),
                Hint::Later => {
                    self.refresh_soon();
                    let pause = PAUSE * (sent_on + 1);
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                }
                Hint::Elsewhere | Hint::Nothing => return Err(failed.error),
            }
        }
        unreachable!("the last failure is returned")
    }

    /// Returns the keys of locks that begin with `key_prefix`, from every master.
    pub(super) async fn keys(
        self: &Arc<Self>,
        prefix: &str,
        key_prefix: &str,
    ) -> Result<BTreeSet<LockKey>, BackendError> {
        let masters = self.masters().await?;
        let all = masters.iter().map(|master| master.keys(prefix, key_prefix));
        let mut keys: BTreeSet<_> = try_join_all(all).await?.into_iter().flatten().collect();
        while keys.len() > MAX_LISTED {
            keys.pop_last();
        }
        Ok(keys)
    }

    /// Finds the nodes and connects to the masters. If only some masters do not answer, their slots are
    /// unavailable until they do.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<(), BackendError> {
        let masters = self.masters().await?;
        let mut asking: FuturesUnordered<_> = masters
            .iter()
            .map(|master| async move {
                let connected = async {
                    master.connect().await?;
                    master.refuse_eviction().await
                };
                let limit = self.limits.connect + self.limits.response;
                let connected = tokio::time::timeout(limit, connected).await;
                (master, connected.unwrap_or_else(|_| Err(BackendError::transient("no answer"))))
            })
            .collect();
        let (mut answered, mut failure) = (false, None);
        while let Some((master, connected)) = asking.next().await {
            match connected {
                Ok(()) => answered = true,
                Err(error) if error.is_transient() => {
                    tracing::warn!(
                        target: "dlock",
                        node = master.address(),
                        %error,
                        "this node of the redis cluster does not answer; locks in its slots are unavailable until it does; make sure that its maxmemory-policy is noeviction"
                    );
                    failure = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        failure.filter(|_| !answered).map_or(Ok(()), Err)
    }

    /// Returns the next node to listen to. Every node forwards the messages of all.
    pub(super) fn next_to_listen_to(&self) -> Arc<Server> {
        let known = self.known();
        let mut nodes: Vec<_> = known.nodes.values().collect();
        nodes.sort_by(|one, other| one.address().cmp(other.address()));
        Arc::clone(nodes[self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len()])
    }

    async fn masters(self: &Arc<Self>) -> Result<Vec<Arc<Server>>, BackendError> {
        if self.known().masters.is_unknown() {
            self.refresh().await?;
        }
        let known = self.known();
        let mut masters: Vec<Arc<Server>> = vec![];
        for master in known.masters.all() {
            if !masters.iter().any(|other| Arc::ptr_eq(other, master)) {
                masters.push(Arc::clone(master));
            }
        }
        if masters.is_empty() { Err(self.without_master()) } else { Ok(masters) }
    }

    async fn master(self: &Arc<Self>, slot: Slot) -> Result<Arc<Server>, BackendError> {
        if let Some(master) = self.known().masters.of(slot) {
            return Ok(master);
        }
        self.refresh().await?;
        self.known().masters.of(slot).ok_or_else(|| self.without_master())
    }

    fn without_master(&self) -> BackendError {
        let problem = format!("the redis cluster at {} has no master for the slot", self.address());
        BackendError::transient(problem).not_sent()
    }

    /// Returns the node at an address that `by` has reported.
    fn node(&self, address: &str, by: &Server) -> Result<Arc<Server>, BackendError> {
        let (host, port) = slots::address_of(address, by.address())
            .ok_or_else(|| BackendError::transient("a redis node reported an invalid address"))?;
        self.node_at(&mut self.known(), host, port)
    }

    fn node_at(
        &self,
        known: &mut Known,
        host: String,
        port: u16,
    ) -> Result<Arc<Server>, BackendError> {
        let client = self.template.client(host, port);
        let client = client.map_err(|error| super::address::unreadable(&error.to_string()))?;
        let address = client.get_connection_info().addr().to_string();
        let new = || Arc::new(Server::of(client, self.limits, self.is_copied));
        Ok(Arc::clone(known.nodes.entry(address).or_insert_with(new)))
    }

    /// Refreshes the slots in the background, unless that was done a moment ago.
    fn refresh_soon(self: &Arc<Self>) {
        let mut known = self.known();
        if known.asked.is_none_or(|asked| asked.elapsed() > REST) {
            // The refresh runs in a task of its own.
            drop(self.refresh_with(&mut known));
        }
    }

    /// Refreshes the slots.
    async fn refresh(self: &Arc<Self>) -> Result<(), BackendError> {
        let refreshing = self.refresh_with(&mut self.known());
        let refreshed = refreshing.clone().await;
        let mut known = self.known();
        // If its runtime shut down, it could not clear this itself.
        known.refreshing.take_if(|other| other.ptr_eq(&refreshing));
        drop(known);
        refreshed.map_err(|error| {
            let explained = if error.is_transient() {
                BackendError::transient(error.to_string())
            } else {
                BackendError::permanent(error.to_string())
            };
            explained.with_source(error).not_sent()
        })
    }

    fn refresh_with(self: &Arc<Self>, known: &mut Known) -> Refreshing {
        if let Some(refreshing) = &known.refreshing {
            return refreshing.clone();
        }
        known.asked = Some(Instant::now());
        let cluster = Arc::clone(self);
        let task = tokio::spawn(async move {
            let reported = cluster.ask_nodes().await;
            let mut known = cluster.known();
            known.refreshing = None;
            known.asked = Some(Instant::now());
            reported.and_then(|reported| cluster.note(&mut known, reported)).map_err(Arc::new)
        });
        let ended = || Arc::new(BackendError::transient("the runtime was shut down"));
        let refreshing =
            async move { task.await.unwrap_or_else(|_| Err(ended())) }.boxed().shared();
        known.refreshing.insert(refreshing).clone()
    }

    /// Asks nodes until one answers. Asks another one whenever a node fails or is slow.
    async fn ask_nodes(&self) -> Result<Vec<Assigned>, BackendError> {
        let mut nodes: Vec<_> = self.known().nodes.values().cloned().collect();
        // Begins with a random node, so that not all processes ask the same one at once.
        let first = rand::random_range(0..nodes.len());
        nodes.rotate_left(first);
        let mut left = nodes.iter();
        let ask = |node: &Arc<Server>| {
            let node = Arc::clone(node);
            async move {
                let by = node.address().to_owned();
                node.link().ask(|connection| slots::ask(connection, by)).await
            }
        };
        let mut asking: FuturesUnordered<_> = left.by_ref().take(1).map(ask).collect();
        let mut failure = None;
        while !asking.is_empty() {
            match tokio::time::timeout(HEDGE, asking.next()).await {
                Ok(Some(Ok(reported))) => return Ok(reported),
                // A permanent error (wrong credentials) says more than a node that is down.
                Ok(Some(Err(error))) => {
                    if failure.as_ref().is_none_or(BackendError::is_transient) {
                        failure = Some(error);
                    }
                }
                Ok(None) | Err(_) => {}
            }
            asking.extend(left.next().map(ask));
        }
        Err(failure.unwrap_or_else(|| self.without_master()))
    }

    fn note(&self, known: &mut Known, reported: Vec<Assigned>) -> Result<(), BackendError> {
        let mut masters = Masters::default();
        let mut nodes: HashMap<_, _> = self.seeds.iter().map(by_address).collect();
        for assigned in reported {
            let master = self.node_at(known, assigned.host.clone(), assigned.port)?;
            masters.assign(assigned.each(), &master);
            nodes.extend([by_address(&master)]);
        }
        known.masters = masters;
        known.nodes = nodes;
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn by_address(server: &Arc<Server>) -> (String, Arc<Server>) {
    (server.address().to_owned(), Arc::clone(server))
}
