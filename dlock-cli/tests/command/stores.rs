//! The stores that the command is tested on.

use dlock_tests::servers::{MariaDbServer, PostgresServer, RedisServer, ZooKeeperServer};

/// A store that is started for one test.
pub trait Store: Send + Sync + 'static {
    /// A ttl that is short on this store.
    const SHORT: &'static str;

    fn start() -> Self;

    fn url(&self) -> String;

    /// Stops it without a goodbye. A file cannot be stopped.
    fn kill(&mut self) {}
}

pub struct OnSqlite(tempfile::TempDir);

impl Store for OnSqlite {
    const SHORT: &'static str = "2s";

    fn start() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.0.path().join("locks.db").display())
    }
}

macro_rules! on_servers {
    ($($store:ident: $server:ident, short ttl $short:literal;)*) => { $(
        pub struct $store($server);

        impl Store for $store {
            const SHORT: &'static str = $short;

            fn start() -> Self {
                Self($server::start())
            }

            fn url(&self) -> String {
                self.0.url()
            }

            fn kill(&mut self) {
                self.0.kill();
            }
        }
    )* };
}

on_servers! {
    OnRedis: RedisServer, short ttl "2s";
    OnPostgres: PostgresServer, short ttl "2s";
    OnMariaDb: MariaDbServer, short ttl "2s";
    // At least its session timeout.
    OnZooKeeper: ZooKeeperServer, short ttl "10s";
}

impl OnRedis {
    pub fn server(&self) -> &RedisServer {
        &self.0
    }
}
