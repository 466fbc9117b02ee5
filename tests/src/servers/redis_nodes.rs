//! Redis servers that know nothing of each other.

use super::RedisServer;

/// Independent Redis servers, for a majority of them.
#[derive(Debug)]
pub struct RedisNodes {
    /// The servers.
    pub servers: Vec<RedisServer>,
}

impl RedisNodes {
    /// Starts five that keep nothing on disk.
    ///
    /// # Panics
    /// When they cannot be started.
    #[must_use]
    pub fn start() -> Self {
        Self { servers: (0..5).map(|_| RedisServer::start()).collect() }
    }

    /// Their URL, which declares them brand-new.
    #[must_use]
    pub fn url(&self) -> String {
        let nodes: Vec<_> =
            self.servers.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redlock://{}?bootstrap=true", nodes.join(","))
    }

    /// The URL of each.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::url).collect()
    }
}
