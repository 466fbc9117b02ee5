//! Simulated stores: a host with the promises of one kind of store, and the client that each process has for it.

mod leases;
mod majority;
mod occupancy;
mod queue;
mod session;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::calls::{Broken, Call, Reply, Request};
use super::host::{HostId, Visit};
use super::instance::ProcessId;
use super::{nanos, world};
use crate::backend::Claim;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::registry::Registry;
use crate::timer;

/// How long a client waits for the answer to a request, before it gives up or sends it again.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(400);

/// A simulated store of locks.
///
/// It keeps the promises that a real store of its kind keeps, and no more: its clock drifts and is set back, it restarts,
/// and what it stores is reached over a network that loses and delays messages.
#[derive(Clone)]
pub struct Store {
    server: Server,
}

#[derive(Clone)]
enum Server {
    Leases(Arc<leases::Leases>),
    Majority(Arc<majority::Majority>),
    Queue(Arc<queue::Queue>),
    Session(Arc<session::Sessions>),
}

impl Store {
    /// A store that grants leases by its own clock, as Redis, PostgreSQL, MySQL and SQLite do. It has every kind of lock
    /// and notifies waiters.
    ///
    /// # Panics
    /// Outside of a simulation.
    #[must_use]
    pub fn leases() -> Self {
        Self { server: Server::Leases(Arc::new(leases::Leases::new())) }
    }

    /// Like [`leases`](Self::leases), but plain exclusive claims wait in a line, and a release reserves the key for the first
    /// of them, as Redis does.
    ///
    /// # Panics
    /// Outside of a simulation.
    #[must_use]
    pub fn leases_with_a_line() -> Self {
        Self { server: Server::Leases(Arc::new(leases::Leases::in_line())) }
    }

    /// Like [`leases`](Self::leases), but a renewal restores a lease of which the store has nothing, as nodes of Redlock do:
    /// it may arrive when the lease has expired, and others have held the key since. Renewals are slow here.
    ///
    /// # Panics
    /// Outside of a simulation.
    #[must_use]
    pub fn restoring_leases() -> Self {
        Self { server: Server::Leases(Arc::new(leases::Leases::restoring())) }
    }

    /// A store that queues waiters itself, as etcd does. It has every kind of lock, and keeps a released key for the rest
    /// of a `min_hold`.
    ///
    /// # Panics
    /// Outside of a simulation.
    #[must_use]
    pub fn queue() -> Self {
        Self { server: Server::Queue(Arc::new(queue::Queue::new())) }
    }

    /// A store whose locks last as long as the session of their process, as in ZooKeeper. It has every kind of lock.
    ///
    /// # Panics
    /// Outside of a simulation.
    #[must_use]
    pub fn session() -> Self {
        Self { server: Server::Session(Arc::new(session::Sessions::new())) }
    }

    /// So many independent nodes, of which a majority grants leases, as in Redlock. It has exclusive locks, without a
    /// `min_hold`.
    ///
    /// Each node is a host of its own, which may restart with its data or without.
    ///
    /// # Panics
    /// Outside of a simulation, or if there are fewer than three nodes.
    #[must_use]
    pub fn majority(nodes: usize) -> Self {
        assert!(nodes >= 3, "a majority that survives the loss of a node needs three");
        Self { server: Server::Majority(Arc::new(majority::Majority::new(nodes))) }
    }

    /// Adds a client of this store to a registry.
    fn register(&self, builder: crate::RegistryBuilder, name: &str) -> crate::RegistryBuilder {
        match &self.server {
            Server::Leases(server) => {
                builder.backend(name, leases::LeasesClient::new(Arc::clone(server)))
            }
            Server::Majority(server) => builder
                .backend(name, majority::MajorityClient::new(Arc::clone(server)))
                .default_ttl(majority::MAX_LEASE),
            Server::Queue(server) => {
                builder.backend(name, queue::QueueClient::new(Arc::clone(server)))
            }
            Server::Session(server) => {
                builder.backend(name, session::SessionClient::new(Arc::clone(server)))
            }
        }
    }

    /// Pauses the store for this long: requests wait until it goes on. Of a majority, all nodes are paused.
    pub fn pause(&self, length: Duration) {
        for host in self.hosts() {
            world::with(|world| world.pause_host(host, nanos(length)));
        }
    }

    fn hosts(&self) -> Vec<HostId> {
        match &self.server {
            Server::Leases(server) => vec![server.host()],
            Server::Queue(server) => vec![server.host()],
            Server::Session(server) => vec![server.host()],
            Server::Majority(server) => server.hosts(),
        }
    }

    /// Whether anybody held the key, or waited for it, at this simulated time or later. If not, a call that began then must
    /// not be told that the key is busy.
    #[must_use]
    pub fn was_occupied(&self, key: impl Into<LockKey>, since: Duration) -> bool {
        match &self.server {
            Server::Leases(server) => server.was_occupied(&key.into(), nanos(since)),
            Server::Majority(server) => server.was_occupied(&key.into(), nanos(since)),
            Server::Queue(server) => server.was_occupied(&key.into(), nanos(since)),
            Server::Session(server) => server.was_occupied(&key.into(), nanos(since)),
        }
    }

    /// Who waits in the store's queues, as text: for the checks of scenarios.
    #[must_use]
    pub fn waiters(&self) -> Vec<String> {
        match &self.server {
            Server::Leases(server) => server.waiters(),
            Server::Queue(_) | Server::Session(_) | Server::Majority(_) => Vec::new(),
        }
    }

    /// What is left in the store, other than memories of what is over: for the checks at the end of a scenario.
    ///
    /// A list of keys that are held or waited for.
    #[must_use]
    pub fn occupied(&self) -> Vec<String> {
        match &self.server {
            Server::Leases(server) => server.occupied(),
            Server::Majority(server) => server.occupied(),
            Server::Queue(server) => server.occupied(),
            Server::Session(server) => server.occupied(),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Registers a store under this name in each process that starts from now on. The first one is their default.
///
/// Without any, each backend that an annotated function of this binary names is a [`Store::leases`].
///
/// # Panics
/// Outside of a simulation.
pub fn backend(name: impl Into<String>, store: &Store) {
    world::with(|world| world.backends.push((name.into(), store.clone())));
}

/// A registry for a new process.
pub(super) fn registry(id: ProcessId) -> Registry {
    if world::with(|world| world.backends.is_empty()) {
        for name in names() {
            backend(name, &Store::leases());
        }
    }
    let (backends, before) =
        world::with(|world| (world.backends.clone(), world.current.replace(id)));
    let default = backends[0].0.clone();
    let builder = Registry::builder().default_backend(default);
    let builder =
        backends.iter().fold(builder, |builder, (name, store)| store.register(builder, name));
    let registry = builder.build();
    world::with(|world| world.current = before);
    registry.unwrap_or_else(|error| panic!("{error}"))
}

/// The backends that annotated functions name.
fn names() -> Vec<String> {
    let sites = Registry::sites();
    let mut names: Vec<_> =
        sites.iter().filter_map(|site| site.backend_name().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push("default".to_owned());
    }
    names
}

/// The client's side of a connection to one host.
#[derive(Debug)]
struct Connection {
    host: HostId,
}

/// A request, in terms of the network.
#[derive(Clone, Copy, Debug)]
struct What {
    name: &'static str,
    /// What the hash of the trace covers of it.
    digest: u64,
    /// Whether a second execution changes nothing, and answers the same.
    may_repeat: bool,
}

/// An answer.
struct Answered<R> {
    value: R,
    /// Another copy of the request may still be executed.
    in_doubt: bool,
}

impl Connection {
    /// Sends a request. If `may_repeat` allows it, half of the clients send it again when the connection breaks or is
    /// silent, as those of real stores do.
    async fn ask<S: Send + 'static, R: fmt::Debug + Send + 'static>(
        &self,
        what: What,
        state: &Arc<Mutex<S>>,
        act: impl Fn(&mut S, &mut Visit) -> R + Send + Sync + 'static,
    ) -> Result<Answered<R>, BackendError> {
        let state = Arc::clone(state);
        let request = Request {
            what: what.name.into(),
            digest: what.digest,
            act: Arc::new(move |visit| {
                let value = act(&mut state.lock().unwrap_or_else(PoisonError::into_inner), visit);
                reply(value)
            }),
        };
        let repeats = what.may_repeat && crate::chance::between(0.0, 1.0) < 0.5;
        let mut maybe_sent = false;
        for is_last in [!repeats, true] {
            let call = Call::new(self.host, request.clone());
            let broken = match timer::timeout(RESPONSE_TIMEOUT, call).await {
                Ok(Ok(reply)) => return Ok(Answered { value: taken(reply), in_doubt: maybe_sent }),
                Ok(Err(broken)) => broken,
                Err(_silent) => Broken::Lost,
            };
            maybe_sent |= broken == Broken::Lost;
            if is_last {
                break;
            }
        }
        let error = format!("the simulated store did not answer to {}", what.name);
        let error = BackendError::transient(error);
        Err(if maybe_sent { error } else { error.not_sent() })
    }
}

/// What the hash of the trace covers of a claim.
fn digest(claim: &Claim) -> u64 {
    let [low, ..] = claim.owner.as_bytes().as_chunks::<8>().0 else { return 0 };
    u64::from_le_bytes(*low)
}

fn reply<R: fmt::Debug + Send + 'static>(value: R) -> Reply {
    // The hash covers what people would see, without formatting it for each of a million schedules.
    let text = if world::try_with(|world| world.trace.is_recording()).unwrap_or(false) {
        format!("{value:?}")
    } else {
        String::new()
    };
    Reply { value: Box::new(value) as Box<dyn Any + Send>, digest: 0, text }
}

fn taken<R: 'static>(reply: Reply) -> R {
    *reply.value.downcast().expect("each request has its own type of answer")
}
