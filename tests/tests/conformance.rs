//! Runs the public conformance suite against every backend. `DLOCK_RULES` selects rules, separated
//! by commas.

use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "etcd")]
use dlock_runtime::backend::Etcd;
use dlock_runtime::backend::{Memory, MySql, Postgres, Redis, Redlock, Sqlite, ZooKeeper};
use dlock_runtime::testing::{Report, Suite};
#[cfg(feature = "etcd")]
use dlock_tests::servers::{EtcdCluster, EtcdServer};
use dlock_tests::servers::{
    MariaDbServer, PostgresServer, RedisCluster, RedisNodes, RedisSentinels, RedisServer, VALKEY,
    ZOOKEEPER, ZooKeeperEnsemble, ZooKeeperServer, installed,
};
use dlock_tests::trials::Trials;

fn main() -> ExitCode {
    let mut trials = Trials::default();
    trials.side_by_side(4);
    trials.add("memory_conforms", memory);
    trials.add("sqlite_conforms", sqlite);
    trials.needs("redis-server", "redis_conforms", redis);
    // Debian 12 has no Valkey package.
    if installed(VALKEY) {
        trials.add("valkey_conforms", || async {
            let server = RedisServer::start_valkey();
            redis_at(server.url()).await;
        });
    }
    trials.needs("redis-server", "redis_cluster_conforms", || async {
        let cluster = RedisCluster::start();
        redis_at(cluster.url()).await;
    });
    trials.needs("redis-server", "redis_sentinel_conforms", || async {
        let sentinels = RedisSentinels::start();
        redis_at(sentinels.url()).await;
    });
    trials.needs("redis-server", "redlock_conforms", redlock);
    trials.needs(ZOOKEEPER, "zookeeper_conforms", || async {
        let server = ZooKeeperServer::start();
        zookeeper_at(server.url()).await;
    });
    trials.needs(ZOOKEEPER, "zookeeper_ensemble_conforms", || async {
        let ensemble = ZooKeeperEnsemble::start();
        // Three servers and all rules may share one core, so a session has to outlast their stalls.
        zookeeper_at(ensemble.url_with(4_000)).await;
    });
    #[cfg(feature = "etcd")]
    trials.needs("etcd", "etcd_conforms", || async {
        let server = EtcdServer::start();
        etcd_at(server.url()).await;
    });
    #[cfg(feature = "etcd")]
    trials.needs("etcd", "etcd_cluster_conforms", || async {
        let cluster = EtcdCluster::start();
        etcd_at(cluster.url()).await;
    });
    trials.needs("postgres", "postgres_conforms", || postgres(10));
    trials.needs("postgres", "postgres_conforms_with_one_connection", || postgres(1));
    trials.needs("mariadbd", "mysql_conforms", || mysql(10));
    trials.needs("mariadbd", "mysql_conforms_with_one_connection", || mysql(1));
    trials.run()
}

async fn memory() {
    let store = Memory::new();
    let report = check(Suite::new(move || std::future::ready(Ok(store.clone())))).await;
    // The memory backend claims to support every kind of lock.
    if wanted().is_none() {
        assert_eq!(report.checked(), Suite::rules().len());
    }
}

fn wanted() -> Option<String> {
    std::env::var("DLOCK_RULES").ok()
}

async fn check(suite: Suite) -> Report {
    let suite = match wanted() {
        Some(rules) => suite.only(&rules.split(',').collect::<Vec<_>>()),
        None => suite,
    };
    let report = suite.run().await;
    report.assert_passed();
    report
}

async fn sqlite() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", folder.path().join("locks.db").display());
    let suite = Suite::new(move || {
        let url = url.clone();
        async move { Sqlite::connect(&url).await }
    });
    check(suite).await;
}

async fn redis() {
    let server = RedisServer::start();
    redis_at(server.url()).await;
}

async fn redis_at(url: String) {
    let suite = Suite::new(move || {
        let url = url.clone();
        async move { Redis::connect(&url).await }
    });
    check(suite).await;
}

async fn redlock() {
    let nodes = RedisNodes::start();
    let url = nodes.url();
    let suite = Suite::new(move || {
        let url = url.clone();
        // All rules run at the same time over a hundred connections, unlike in a real process. A
        // slow node must not count as a failed one.
        let patient = Redlock::builder()
            .connect_timeout(Duration::from_secs(10))
            .node_timeout(Duration::from_secs(5));
        async move { patient.connect_url(&url).await }
    });
    check(suite).await;
}

#[cfg(feature = "etcd")]
async fn etcd_at(url: String) {
    let suite = Suite::new(move || {
        let url = url.clone();
        async move { Etcd::connect(&url).await }
    });
    check(suite).await;
}

async fn zookeeper_at(url: String) {
    let suite = Suite::new(move || {
        let url = url.clone();
        async move { ZooKeeper::connect(&url).await }
    });
    check(suite).await;
}

async fn postgres(connections: u32) {
    let server = PostgresServer::start();
    let url = server.url();
    let suite = Suite::new(move || {
        let url = url.clone();
        async move { Postgres::builder().max_connections(connections).connect(&url).await }
    });
    check(suite).await;
}

async fn mysql(connections: u32) {
    let server = MariaDbServer::start();
    let url = server.url();
    let suite = Suite::new(move || {
        let url = url.clone();
        async move { MySql::builder().max_connections(connections).connect(&url).await }
    });
    check(suite).await;
}
