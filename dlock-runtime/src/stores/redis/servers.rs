//! Routes requests to the one server, or to the node of a Cluster that has the name.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::RedisResult;
use redis::aio::PubSub;

use super::cluster::Cluster;
use super::copies::Copies;
use super::link::Limits;
use super::requests::Answered;
use super::server::{Lane, Server};
use super::step::Step;
use crate::error::BackendError;
use crate::key::LockKey;

#[derive(Clone)]
pub(in crate::stores) enum Servers {
    One(Arc<Server>),
    Cluster(Arc<Cluster>),
}

impl Servers {
    /// Opens the connections that requests need, and refuses servers that would evict locks.
    pub(super) async fn connect(&self) -> Result<(), BackendError> {
        match self {
            Self::One(server) => {
                server.connect().await?;
                server.refuse_eviction().await
            }
            Self::Cluster(cluster) => cluster.connect().await,
        }
    }

    /// Sends a request to the server that has this name.
    pub(super) async fn send(
        &self,
        name: &str,
        lane: Lane,
        step: Step,
        copies: Option<Copies>,
    ) -> Result<Answered, BackendError> {
        match self {
            Self::One(server) => Ok(server.send(lane, step, copies).await?),
            Self::Cluster(cluster) => cluster.send(name, lane, step, copies).await,
        }
    }

    /// Returns the keys of locks that begin with `key_prefix`, in order, at most
    /// [`MAX_LISTED`](crate::backend::MAX_LISTED).
    pub(super) async fn keys(
        &self,
        prefix: &str,
        key_prefix: &str,
    ) -> Result<BTreeSet<LockKey>, BackendError> {
        match self {
            Self::One(server) => server.keys(prefix, key_prefix).await,
            Self::Cluster(cluster) => cluster.keys(prefix, key_prefix).await,
        }
    }

    /// Opens a connection that receives messages. In a Cluster, every node forwards the messages of all.
    pub(super) async fn listen(&self) -> RedisResult<PubSub> {
        let server = match self {
            Self::One(server) => Arc::clone(server),
            Self::Cluster(cluster) => cluster.next_to_listen_to(),
        };
        server.link().topology().listen(self.limits()).await
    }

    pub(super) fn limits(&self) -> Limits {
        match self {
            Self::One(server) => server.link().limits(),
            Self::Cluster(cluster) => cluster.limits(),
        }
    }

    /// The hosts and ports, for messages.
    pub(super) fn address(&self) -> String {
        match self {
            Self::One(server) => server.address().to_owned(),
            Self::Cluster(cluster) => cluster.address(),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}
