//! A Cluster: which node has a slot, and requests that are sent on to where it is now.
//!
//! Each node has connections and limits of its own; nothing that one of them does or fails to do holds up
//! a request to another. Which node has which slot is asked of several, one after the other in short
//! order, and the first answer counts.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Shared, try_join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use redis::{FromRedisValue, ScriptInvocation};

use super::failure::Hint;
use super::link::Limits;
use super::server::{Care, Lane, Server};
use super::slots::{self, Assigned, Masters, Slot};
use super::topology::Template;
use crate::backend::MAX_LISTED;
use crate::error::BackendError;
use crate::key::LockKey;

/// How often a request is sent on, or again, before the caller is told.
const REDIRECTIONS: u32 = 5;

/// Before a request is sent again to a Cluster that is about to change; a longer one the later.
const PAUSE: Duration = Duration::from_millis(20);

/// After this time without an answer another node is asked as well.
const HEDGE: Duration = Duration::from_millis(100);

/// The slots are not asked for more often than this, unless nothing is known of one.
const REST: Duration = Duration::from_millis(200);

pub(in crate::stores) struct Cluster {
    template: Template,
    /// The nodes by which it is found.
    seeds: Vec<Arc<Server>>,
    limits: Limits,
    is_copied: bool,
    known: Mutex<Known>,
    /// Which node was listened to last.
    turn: AtomicUsize,
}

#[derive(Default)]
struct Known {
    /// By host and port.
    nodes: HashMap<String, Arc<Server>>,
    masters: Masters<Arc<Server>>,
    asked: Option<Instant>,
    /// Many callers share one look, and none of them ends it by going away.
    looking: Option<Looking>,
}

type Looking = Shared<BoxFuture<'static, Result<(), Arc<BackendError>>>>;

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

    /// The hosts and ports by which it is found.
    pub(super) fn address(&self) -> String {
        let seeds: Vec<_> = self.seeds.iter().map(|seed| seed.address()).collect();
        seeds.join(",")
    }

    /// Runs a script on the master that has the slot of this name.
    pub(super) async fn run<T: FromRedisValue>(
        self: &Arc<Self>,
        name: &str,
        lane: Lane,
        script: &ScriptInvocation<'_>,
        care: Care<'_, T>,
    ) -> Result<T, BackendError> {
        let slot = Slot::for_key(name);
        let mut asked: Option<Arc<Server>> = None;
        for sent_on in 0.. {
            let (server, asking) = match asked.take() {
                Some(server) => (server, true),
                None => (self.master(slot).await?, false),
            };
            let failed = match server.run(lane, script, care, asking).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if failed.hint == Hint::Elsewhere {
                self.look_soon();
            }
            if sent_on == REDIRECTIONS {
                return Err(failed.error);
            }
            match &failed.hint {
                Hint::Moved(address) => {
                    let node = self.node(address, &server)?;
                    self.known().masters.assign([slot], &node);
                    self.look_soon();
                }
                Hint::Ask(address) => asked = Some(self.node(address, &server)?),
                Hint::Later => {
                    self.look_soon();
                    let pause = PAUSE * (sent_on + 1);
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                }
                Hint::Elsewhere | Hint::Nothing => return Err(failed.error),
            }
        }
        unreachable!("the last one is returned")
    }

    /// The keys of locks that begin so, on every master.
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

    /// Looks for the nodes and connects to the masters. One that does not answer is done without: its
    /// slots are, until it does.
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
                        "this node of the redis cluster does not answer: there are no locks in its slots until it does; make sure that its maxmemory-policy is noeviction"
                    );
                    failure = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        failure.filter(|_| !answered).map_or(Ok(()), Err)
    }

    /// The next node to listen to: any passes on the messages of all.
    pub(super) fn next_to_hear(&self) -> Arc<Server> {
        let known = self.known();
        let mut nodes: Vec<_> = known.nodes.values().collect();
        nodes.sort_by(|one, other| one.address().cmp(other.address()));
        Arc::clone(nodes[self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len()])
    }

    async fn masters(self: &Arc<Self>) -> Result<Vec<Arc<Server>>, BackendError> {
        if self.known().masters.is_unknown() {
            self.look().await?;
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
        self.look().await?;
        self.known().masters.of(slot).ok_or_else(|| self.without_master())
    }

    fn without_master(&self) -> BackendError {
        let problem = format!("the redis cluster at {} has no master for the slot", self.address());
        BackendError::transient(problem).not_sent()
    }

    /// The node at an address, as `by` has told it.
    fn node(&self, address: &str, by: &Server) -> Result<Arc<Server>, BackendError> {
        let (host, port) = slots::address_of(address, by.address())
            .ok_or_else(|| BackendError::transient("a redis node told an address that is none"))?;
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

    /// Looks who has which slot, in the background, if that was not done a moment ago.
    fn look_soon(self: &Arc<Self>) {
        let mut known = self.known();
        if known.asked.is_none_or(|asked| asked.elapsed() > REST) {
            // It goes on by itself.
            drop(self.look_with(&mut known));
        }
    }

    /// Looks who has which slot.
    async fn look(self: &Arc<Self>) -> Result<(), BackendError> {
        let looking = self.look_with(&mut self.known());
        let looked = looking.clone().await;
        let mut known = self.known();
        // It may have ended with its runtime, without a word.
        known.looking.take_if(|other| other.ptr_eq(&looking));
        drop(known);
        looked.map_err(|error| {
            let explained = if error.is_transient() {
                BackendError::transient(error.to_string())
            } else {
                BackendError::permanent(error.to_string())
            };
            explained.with_source(error).not_sent()
        })
    }

    fn look_with(self: &Arc<Self>, known: &mut Known) -> Looking {
        if let Some(looking) = &known.looking {
            return looking.clone();
        }
        known.asked = Some(Instant::now());
        let cluster = Arc::clone(self);
        let task = tokio::spawn(async move {
            let told = cluster.ask_around().await;
            let mut known = cluster.known();
            known.looking = None;
            known.asked = Some(Instant::now());
            told.and_then(|told| cluster.note(&mut known, told)).map_err(Arc::new)
        });
        let ended = || Arc::new(BackendError::transient("the runtime has ended"));
        let looking = async move { task.await.unwrap_or_else(|_| Err(ended())) }.boxed().shared();
        known.looking.insert(looking).clone()
    }

    /// Asks nodes until one answers, another whenever one fails or takes long.
    async fn ask_around(&self) -> Result<Vec<Assigned>, BackendError> {
        let mut nodes: Vec<_> = self.known().nodes.values().cloned().collect();
        // Another one first each time: none is asked by all processes at once.
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
                Ok(Some(Ok(told))) => return Ok(told),
                // What is wrong with credentials is worth more than a node that is away.
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

    fn note(&self, known: &mut Known, told: Vec<Assigned>) -> Result<(), BackendError> {
        let mut masters = Masters::default();
        let mut nodes: HashMap<_, _> = self.seeds.iter().map(by_address).collect();
        for assigned in told {
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
