//! The stores that the command is tested on.

use dlock_tests::servers::{PostgresServer, RedisServer, ZooKeeperServer};

/// A store that is started for one test.
pub trait Store: Send + Sync + 'static {
    /// A ttl that is short on this store.
    const SHORT: &'static str = "2s";

    fn start() -> Self;

    fn url(&self) -> String;

    /// Stops it without a goodbye. A file cannot be stopped.
    fn kill(&mut self) {}
}

pub struct OnSqlite(tempfile::TempDir);

impl Store for OnSqlite {
    fn start() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.0.path().join("locks.db").display())
    }
}

pub struct OnRedis(RedisServer);

impl Store for OnRedis {
    fn start() -> Self {
        Self(RedisServer::start())
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn kill(&mut self) {
        self.0.kill();
    }
}

pub struct OnPostgres(PostgresServer);

impl Store for OnPostgres {
    fn start() -> Self {
        Self(PostgresServer::start())
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn kill(&mut self) {
        self.0.kill();
    }
}

pub struct OnZooKeeper(ZooKeeperServer);

impl Store for OnZooKeeper {
    // At least its session timeout.
    const SHORT: &'static str = "10s";

    fn start() -> Self {
        Self(ZooKeeperServer::start())
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn kill(&mut self) {
        self.0.kill();
    }
}
