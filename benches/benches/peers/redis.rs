//! Redis: one server, a Cluster, a master under Sentinels.

use std::time::Duration;

use distributed_lock_core::traits::{DistributedLock as _, LockHandle as _, LockProvider as _};
use distributed_lock_redis::RedisLockProvider;
use dlock_benches::contender::{Contender, Role, in_tasks};
use dlock_benches::contest::Contest;
use dlock_benches::outcome::Outcome;
use dlock_benches::row::{Family, Plan, Row};
use dlock_tests::servers::{RedisCluster, RedisSentinels, RedisServer};
use rslock::LockManager;

use crate::servers::{cpu_of, info_of};
use crate::{bare, dlock};

pub const TTL: Duration = Duration::from_millis(bare::TTL_MS);

pub const RSLOCK: &str = "rslock";
const DISTRIBUTED_LOCK: &str = "distributed-lock";

pub fn rows() -> Vec<Row> {
    let one = |tasks: u32| {
        let title = match tasks {
            1 => "Redis, 1 task".to_owned(),
            _ => format!("Redis, {tasks} tasks"),
        };
        let id = format!("redis-{tasks}");
        Row::new(Family::Alone, id, title, move |plan| single(plan, tasks)).needs("redis-server")
    };
    vec![
        one(1).at_least(0.85, bare::NAME).at_least(0.9, RSLOCK),
        one(64).at_least(1.2, bare::NAME).at_least(1.5, RSLOCK),
        one(512).at_least(1.8, bare::NAME).at_least(2.5, RSLOCK),
        Row::new(Family::Alone, "cluster-64", "Redis Cluster, 64 tasks", cluster)
            .needs("redis-server")
            .at_least(0.85, bare::NAME),
        Row::new(Family::Alone, "sentinel-64", "Redis under Sentinels, 64 tasks", sentinel)
            .needs("redis-server")
            .at_least(0.85, bare::NAME),
    ]
}

async fn single(plan: Plan, tasks: u32) -> Outcome {
    let server = RedisServer::start();
    contest(&server.url(), tasks).await.probe(info_of(&server)).measure(plan).await
}

/// All contenders on this server.
pub async fn contest(url: &str, tasks: u32) -> Contest {
    Contest::default()
        .with(dlock::alone(url, tasks).await)
        .with(bare::alone(bare::connect(url).await, tasks))
        .with(rslock(vec![url.to_owned()], tasks))
        .with(distributed_lock(url, tasks).await)
}

async fn cluster(plan: Plan) -> Outcome {
    let cluster = RedisCluster::start();
    let nodes = cluster.nodes.iter().map(RedisServer::url);
    let client = redis::cluster::ClusterClient::new(nodes).expect("URLs");
    let connection = client.get_async_connection().await.expect("the servers run");
    Contest::default()
        .with(dlock::alone(&cluster.url(), 64).await)
        .with(bare::alone(connection, 64))
        .probe(cpu_of(&cluster.nodes))
        .measure(plan)
        .await
        .note("server CPU is that of all six nodes, replication included")
}

async fn sentinel(plan: Plan) -> Outcome {
    let all = RedisSentinels::start();
    let master = &all.servers[all.master()];
    Contest::default()
        .with(dlock::alone(&all.url(), 64).await)
        .with(bare::alone(bare::connect(&master.url()).await, 64))
        .probe(cpu_of(all.servers.iter().chain(&all.sentinels)))
        .measure(plan)
        .await
        .note("server CPU is that of the master, both replicas and the Sentinels")
}

/// rslock on one server, or Redlock on several.
pub fn rslock(urls: Vec<String>, tasks: u32) -> Contender {
    let manager = LockManager::new(urls);
    let run = in_tasks(tasks, move |task, mut turns| {
        let manager = manager.clone();
        async move {
            let key = format!("rslock:{task}");
            while turns.again() {
                let lock = manager.lock(&*key, TTL).await.expect("the lock");
                manager.unlock(&lock).await;
            }
            turns
        }
    });
    Contender::new(Role::Peer, RSLOCK, run).remark("no token, no renewal, no wake-up of waiters")
}

async fn distributed_lock(url: &str, tasks: u32) -> Contender {
    let provider = RedisLockProvider::new(url).await.expect("the server runs");
    let run = in_tasks(tasks, move |task, mut turns| {
        let lock = provider.create_lock(&task.to_string());
        async move {
            while turns.again() {
                let held = lock.acquire(None).await.expect("the lock");
                held.release().await.expect("it was held");
            }
            turns
        }
    });
    let remark = "no token; a contended lock is an error at once, so it is in no row with one key";
    Contender::new(Role::Peer, DISTRIBUTED_LOCK, run).remark(remark)
}
