//! Independent Redis servers.

use super::RedisServer;

/// Independent Redis servers, for Redlock.
#[derive(Debug)]
pub struct RedisNodes {
    /// The servers.
    pub servers: Vec<RedisServer>,
}

impl RedisNodes {
    /// Starts five servers without persistence.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start() -> Self {
        Self { servers: (0..5).map(|_| RedisServer::start()).collect() }
    }

    /// The Redlock URL, which declares all nodes brand-new.
    #[must_use]
    pub fn url(&self) -> String {
        let nodes: Vec<_> =
            self.servers.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redlock://{}?bootstrap=true", nodes.join(","))
    }

    /// The URL of each server.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::url).collect()
    }
}
