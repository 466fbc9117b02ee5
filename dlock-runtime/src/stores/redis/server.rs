//! One server and the connections to it. Renewals and releases have their own, so that neither a burst of
//! acquires nor an acquire that hangs delays them.
//!
//! A request on one connection may overtake an earlier one on another. A release overtakes an acquire only if
//! the acquire has not been answered, and then leaves a tombstone for it. A renewal that runs after its release
//! finds nothing to renew.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::{Client, FromRedisValue, ScriptInvocation};

use super::copies::CopiedWrites;
use super::failure::Failed;
use super::link::{Limits, Link};
use super::names::Names;
use super::topology::{self, Topology};
use crate::backend::MAX_LISTED;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::shared::doubt::Doubt;

pub(in crate::stores) struct Server {
    acquires: Arc<Link>,
    keeps: Arc<Link>,
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

/// How a request is sent, and when its answer counts.
pub(in crate::stores) enum Delivery<'a, T> {
    /// The request is sent once.
    Once,
    /// The request may be executed twice without harm. It is sent again over a new connection if the old
    /// one turns out to be broken.
    Repeatable,
    /// An answer for which `has_written` returns true counts only when `replicas` replicas have the write.
    /// With no replicas, the request is [`Repeatable`](Self::Repeatable), and a repetition is noted in `doubt`.
    Copied { replicas: u32, has_written: fn(&T) -> bool, doubt: &'a Doubt },
}

impl<T> Clone for Delivery<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Delivery<'_, T> {}

impl Server {
    pub(super) fn new(topology: &Topology, address: &str, limits: Limits, is_copied: bool) -> Self {
        let link = || Arc::new(Link::new(topology.clone(), address.to_owned(), limits));
        Self {
            acquires: link(),
            keeps: link(),
            copied_acquires: CopiedWrites::new(link),
            copied_keeps: CopiedWrites::new(link),
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
        self.keeps.address()
    }

    /// The connection for everything but acquires.
    pub(in crate::stores) fn link(&self) -> &Arc<Link> {
        self.lane(Lane::Keep)
    }

    /// The connection for requests of this kind.
    pub(in crate::stores) fn lane(&self, lane: Lane) -> &Arc<Link> {
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
            self.acquires.session().await.map(drop)
        };
        let (acquires, keeps) = tokio::join!(acquires, self.keeps.session());
        acquires.and(keeps.map(drop))
    }

    /// Runs a script. With `asking`, the server is asked to answer for a slot that is being moved to it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        lane: Lane,
        script: &ScriptInvocation<'_>,
        care: Delivery<'_, T>,
        asking: bool,
    ) -> Result<T, Failed> {
        let link = self.lane(lane);
        match care {
            Delivery::Once => link.run(script, asking).await,
            Delivery::Repeatable => link.run_repeatable(script, asking, || ()).await,
            Delivery::Copied { replicas: 0, doubt, .. } => {
                link.run_repeatable(script, asking, || doubt.note()).await
            }
            Delivery::Copied { replicas, has_written, .. } => {
                let copied = match lane {
                    Lane::Acquire => &self.copied_acquires,
                    Lane::Keep => &self.copied_keeps,
                };
                copied.run(script, asking, replicas, has_written).await
            }
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
        self.keeps.ask(|connection| topology::scan(connection, &pattern, found)).await?;
        Ok(keys)
    }

    /// Refuses a server that evicts keys under memory pressure, because it would evict held locks.
    pub(in crate::stores) async fn refuse_eviction(&self) -> Result<(), BackendError> {
        let policy = self.keeps.ask(|connection| topology::setting(connection, "maxmemory-policy"));
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
