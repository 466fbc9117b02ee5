//! One server and the connections to it. Renewals and releases have their own, so that neither a burst of
//! acquires nor an acquire that hangs delays them.
//!
//! A request on one connection may overtake an earlier one on another. A release overtakes an acquire only if
//! the acquire has not been answered, and then leaves a tombstone for it. A renewal that runs after its release
//! finds nothing to renew.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use redis::Client;

use super::copies::{CopiedWrites, Copies};
use super::link::{Limits, Link, Session};
use super::names::Names;
use super::requests::{Answer, Requests};
use super::step::Step;
use super::topology::{self, Topology};
use crate::backend::MAX_LISTED;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::shared::batcher::{Batcher, Carrier as _};

pub(in crate::stores) struct Server {
    acquires: Connection,
    keeps: Connection,
    copied_acquires: CopiedWrites,
    copied_keeps: CopiedWrites,
    /// Are acquires and renewals copied to replicas?
    is_copied: bool,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stores) enum Lane {
    Acquire,
    /// Renewals, releases, and the requests of operators.
    Keep,
}

/// The requests over one connection.
struct Connection {
    link: Arc<Link>,
    batcher: Batcher<Requests>,
}

impl Server {
    pub(super) fn new(topology: &Topology, address: &str, limits: Limits, is_copied: bool) -> Self {
        let link = || Arc::new(Link::new(topology.clone(), address.to_owned(), limits));
        let requests = || Requests::new(link());
        let connection = || {
            let requests = requests();
            Connection { link: Arc::clone(requests.link()), batcher: Batcher::new(requests) }
        };
        Self {
            acquires: connection(),
            keeps: connection(),
            copied_acquires: CopiedWrites::new(requests),
            copied_keeps: CopiedWrites::new(requests),
            is_copied,
        }
    }

    /// Creates the server that a client connects to.
    pub(super) fn of(client: Client, limits: Limits, is_copied: bool) -> Self {
        let address = client.get_connection_info().addr().to_string();
        Self::new(&Topology::Server(Arc::new(client)), &address, limits, is_copied)
    }

    /// Its host and port.
    pub(in crate::stores) fn address(&self) -> &str {
        self.keeps.link.address()
    }

    /// The connection for everything but acquires.
    pub(in crate::stores) fn link(&self) -> &Arc<Link> {
        self.lane(Lane::Keep)
    }

    /// The connection for requests of this kind.
    pub(in crate::stores) fn lane(&self, lane: Lane) -> &Arc<Link> {
        &self.connection(lane).link
    }

    fn connection(&self, lane: Lane) -> &Connection {
        match lane {
            Lane::Acquire => &self.acquires,
            Lane::Keep => &self.keeps,
        }
    }

    /// Opens the connections that requests need.
    pub(super) async fn connect(&self) -> Result<(), BackendError> {
        let acquires = async {
            if self.is_copied {
                return self.copied_acquires.connect().await;
            }
            self.acquires.link.session().await.map(drop)
        };
        let (acquires, keeps) = tokio::join!(acquires, self.keeps.link.session());
        acquires.and(keeps.map(drop))
    }

    /// Sends a request, together with others that are ready. A write that needs replicas is sent on its own.
    pub(in crate::stores) async fn send(
        &self,
        lane: Lane,
        step: Step,
        copies: Option<Copies>,
    ) -> Answer {
        match copies {
            None => self.connection(lane).batcher.send(step).await,
            Some(copies) => self.copied(lane).send(&step, false, copies).await,
        }
    }

    /// Sends these requests at once, without waiting for others. Answers each, in their order.
    pub(in crate::stores) async fn send_all(
        &self,
        lane: Lane,
        mut steps: Vec<Step>,
    ) -> Vec<Answer> {
        let carrier = self.connection(lane).batcher.carrier();
        let mut messages = vec![];
        while !steps.is_empty() {
            let rest = steps.split_off(steps.len().min(Requests::MOST));
            messages.push(carrier.carry(std::mem::replace(&mut steps, rest)));
        }
        join_all(messages).await.into_iter().flatten().collect()
    }

    /// Sends a request that the server is asked to answer for a slot that is being moved to it.
    pub(super) async fn ask(&self, lane: Lane, step: Step, copies: Option<Copies>) -> Answer {
        match copies {
            None => {
                let connection = self.connection(lane);
                let session = connection.link.session().await?;
                connection.batcher.carrier().ask_in(session, &step).await
            }
            Some(copies) => self.copied(lane).send(&step, true, copies).await,
        }
    }

    /// Sends a request over this connection.
    pub(in crate::stores) async fn send_in(
        &self,
        lane: Lane,
        session: Session,
        step: &Step,
    ) -> Answer {
        self.connection(lane).batcher.carrier().send_in(session, step).await
    }

    fn copied(&self, lane: Lane) -> &CopiedWrites {
        match lane {
            Lane::Acquire => &self.copied_acquires,
            Lane::Keep => &self.copied_keeps,
        }
    }

    /// Returns the keys of locks that begin with `key_prefix`, in order, at most [`MAX_LISTED`].
    pub(in crate::stores) async fn keys(
        &self,
        prefix: &str,
        key_prefix: &str,
    ) -> Result<BTreeSet<LockKey>, BackendError> {
        let pattern = Names::pattern(prefix, key_prefix);
        let mut keys = BTreeSet::new();
        let found = |name: &str| {
            keys.extend(Names::key(prefix, name));
            if keys.len() > MAX_LISTED {
                keys.pop_last();
            }
        };
        self.keeps.link.ask(|connection| topology::scan(connection, &pattern, found)).await?;
        Ok(keys)
    }

    /// Refuses a server that evicts keys under memory pressure, because it would evict held locks.
    pub(in crate::stores) async fn refuse_eviction(&self) -> Result<(), BackendError> {
        let policy =
            self.keeps.link.ask(|connection| topology::setting(connection, "maxmemory-policy"));
        match policy.await {
            Ok(Some(policy)) if policy != "noeviction" => Err(BackendError::permanent(format!(
                "the redis at {} evicts keys, and with them held locks, when its memory is full (maxmemory-policy {policy}); set the policy to noeviction, or use another server for locks",
                self.address()
            ))),
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() || !error.may_have_been_sent() => Err(error),
            Err(error) => {
                tracing::warn!(target: "dlock", %error, "redis does not report its maxmemory-policy; make sure that it is noeviction");
                Ok(())
            }
        }
    }
}
