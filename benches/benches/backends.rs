//! Every backend on a server of its own, over loopback: how long an uncontended lock takes, and how long
//! it takes until another process's waiter has a lock that is given back.
//!
//! Prints one table, as the guide to the backends shows it. The servers keep their data as they do by
//! default, on the disk of the machine.

use std::time::{Duration, Instant};

use dlock_runtime::{Backend, Registry, Wait};
use dlock_tests::servers::{
    EtcdCluster, EtcdServer, MariaDbServer, PostgresServer, RedisCluster, RedisNodes, RedisServer,
    ZOOKEEPER, ZooKeeperEnsemble, ZooKeeperServer, installed,
};

const CYCLES: usize = 500;
const HAND_OVERS: usize = 40;

/// Long enough for the other one to stand in line.
const UNTIL_IT_WAITS: Duration = Duration::from_millis(150);

/// Two processes over one store.
struct Pair {
    one: Registry,
    other: Registry,
}

impl Pair {
    async fn connect(url: &str) -> Self {
        let connect = async || {
            let backend = dlock_runtime::connect(url).await.expect("the server runs");
            let ttl = backend.capabilities().min_ttl.max(Duration::from_secs(10));
            let registry = Registry::builder().backend("store", backend).default_ttl(ttl);
            registry.build().expect("a registry")
        };
        Self { one: connect().await, other: connect().await }
    }

    /// From the call until the lock is given back, nobody else being there.
    async fn cycle(&self) -> Duration {
        let began = Instant::now();
        self.one.lock("cycle").run(std::future::ready(())).await.expect("the lock");
        began.elapsed()
    }

    /// From the call of the release until the other one has the lock.
    async fn hand_over(&self) -> Duration {
        let held = self.one.lock("hand-over").acquire().await.expect("the lock");
        let waiter = self.other.lock("hand-over").wait(Wait::Forever).acquire();
        let waiter = tokio::spawn(async {
            let guard = waiter.await.expect("the lock");
            (Instant::now(), guard)
        });
        tokio::time::sleep(UNTIL_IT_WAITS).await;
        let began = Instant::now();
        held.release().await.expect("held to the end");
        let (entered, guard) = waiter.await.expect("no panic");
        guard.release().await.expect("held to the end");
        entered - began
    }

    async fn row(&self, name: &str) {
        for _ in 0..CYCLES / 5 {
            self.cycle().await;
        }
        let mut cycles = Vec::new();
        for _ in 0..CYCLES {
            cycles.push(self.cycle().await);
        }
        let mut hand_overs = Vec::new();
        for _ in 0..HAND_OVERS {
            hand_overs.push(self.hand_over().await);
        }
        let [cycle, hand_over] = [cycles, hand_overs].map(|times| {
            let [half, most] = quantiles(times).map(|time| time.as_secs_f64() * 1e3);
            format!("{half:.2} / {most:.2} ms")
        });
        println!("| {name} | {cycle} | {hand_over} |");
    }
}

/// The median, and what 95 of 100 stay below.
fn quantiles(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort();
    [times[times.len() / 2], times[times.len() * 95 / 100]]
}

/// One row, if the server is on this machine.
async fn measure<S>(name: &str, program: &str, start: fn() -> S, url: fn(&S) -> String) {
    if !installed(program) {
        println!("| {name} | left out: {program} is missing (tests/run installs it) | |");
        return;
    }
    let server = start();
    Pair::connect(&url(&server)).await.row(name).await;
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        println!(
            "| | an uncontended lock, median / 95 % | hand-over, median / 95 % |\n|---|---|---|"
        );
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = format!("sqlite:{}", folder.path().join("locks.db").display());
        Pair::connect(&file).await.row("SQLite").await;
        let redis = "redis-server";
        measure("Redis", redis, RedisServer::start, RedisServer::url).await;
        measure("Redis Cluster, 6 nodes", redis, RedisCluster::start, RedisCluster::url).await;
        measure("Redlock, 5 nodes", redis, RedisNodes::start, RedisNodes::url).await;
        measure("PostgreSQL", "postgres", PostgresServer::start, PostgresServer::url).await;
        measure("MariaDB", "mariadbd", MariaDbServer::start, MariaDbServer::url).await;
        // Sessions as long as they are by default: the servers' log is on a disk that others use.
        let url = |server: &ZooKeeperServer| server.url_with(6_000);
        measure("ZooKeeper", ZOOKEEPER, ZooKeeperServer::start, url).await;
        let url = |ensemble: &ZooKeeperEnsemble| ensemble.url_with(6_000);
        measure("ZooKeeper, 3 servers", ZOOKEEPER, ZooKeeperEnsemble::start, url).await;
        if cfg!(feature = "etcd") {
            measure("etcd", "etcd", EtcdServer::start, EtcdServer::url).await;
            measure("etcd, 3 servers", "etcd", EtcdCluster::start, EtcdCluster::url).await;
        }
    });
}
