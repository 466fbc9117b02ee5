//! Where requests go: to one server, or to the node of a Cluster that has the name.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::aio::PubSub;
use redis::{FromRedisValue, RedisResult, ScriptInvocation};

use super::cluster::Cluster;
use super::link::Limits;
use super::server::{Care, Lane, Server};
use crate::error::BackendError;
use crate::key::LockKey;

#[derive(Clone)]
pub(in crate::stores) enum Servers {
    One(Arc<Server>),
    Cluster(Arc<Cluster>),
}

impl Servers {
    /// Makes the connections that requests will need, and refuses servers that would evict locks.
    pub(super) async fn connect(&self) -> Result<(), BackendError> {
        match self {
            Self::One(server) => {
                server.connect().await?;
                server.refuse_eviction().await
            }
            Self::Cluster(cluster) => cluster.connect().await,
        }
    }

    /// Runs a script on the server that has this name.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        name: &str,
        lane: Lane,
        script: &ScriptInvocation<'_>,
        care: Care<'_, T>,
    ) -> Result<T, BackendError> {
        match self {
            Self::One(server) => Ok(server.run(lane, script, care, false).await?),
            Self::Cluster(cluster) => cluster.run(name, lane, script, care).await,
        }
    }

    /// The keys of locks that begin so, in order, [`MAX_LISTED`](crate::backend::MAX_LISTED) at most.
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

    /// A new connection that hears messages. In a Cluster any node passes on those of all.
    pub(super) async fn listen(&self) -> RedisResult<PubSub> {
        let server = match self {
            Self::One(server) => Arc::clone(server),
            Self::Cluster(cluster) => cluster.next_to_hear(),
        };
        server.link().topology().listen(self.limits()).await
    }

    pub(super) fn limits(&self) -> Limits {
        match self {
            Self::One(server) => server.link().limits(),
            Self::Cluster(cluster) => cluster.limits(),
        }
    }

    /// Hosts and ports.
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
