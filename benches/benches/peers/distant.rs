//! The same comparisons with 2 ms added to each round trip: what costs time is then how many round trips a
//! cycle makes, and whether they wait for each other.

use std::time::Duration;

use dlock_benches::contest::Contest;
use dlock_benches::distance::distant;
use dlock_benches::outcome::Outcome;
use dlock_benches::row::{Family, Plan, Row};
use dlock_tests::servers::{
    MariaDbServer, PostgresServer, RedisNodes, RedisServer, ZOOKEEPER, ZooKeeperServer,
};

use crate::redis::RSLOCK;
use crate::{bare, curator, redis, redlock, sql, zookeeper};

const ROUND_TRIP: Duration = Duration::from_millis(2);
const TASKS: u32 = 64;

pub fn rows() -> Vec<Row> {
    #[cfg(feature = "etcd")]
    let etcd = Some(row("etcd", "etcd", on_etcd).needs("etcd").at_least(1.0, crate::etcd::LOCK));
    #[cfg(not(feature = "etcd"))]
    let etcd = None;
    let rows = [
        row("redis", "Redis", on_redis)
            .needs("redis-server")
            .at_least(1.2, bare::NAME)
            .at_least(1.5, RSLOCK),
        row("redlock", "Redlock on 5 servers", on_redlock)
            .needs("redis-server")
            .at_least(1.0, RSLOCK),
        row("postgres", "PostgreSQL", on_postgres).needs("postgres").at_least(1.3, sql::LIMIT),
        row("mariadb", "MariaDB", on_mariadb).needs("mariadbd").at_least(1.2, sql::LIMIT),
        row("zookeeper", "ZooKeeper", on_zookeeper)
            .needs(ZOOKEEPER)
            .at_least(1.0, curator::NAME)
            .at_least(0.8, zookeeper::LIMIT),
    ];
    rows.into_iter().chain(etcd).collect()
}

fn row<Running>(id: &str, title: &str, run: impl Fn(Plan) -> Running + Send + Sync + 'static) -> Row
where
    Running: Future<Output = Outcome> + Send + 'static,
{
    let title = format!("{title}, {TASKS} tasks");
    Row::new(Family::Distant, format!("distant-{id}"), title, run)
}

fn away(port: u16) -> u16 {
    distant(port, ROUND_TRIP)
}

async fn on_redis(plan: Plan) -> Outcome {
    let server = RedisServer::start();
    redis::contest(&format!("redis://127.0.0.1:{}/", away(server.port())), TASKS)
        .await
        .measure(plan)
        .await
}

async fn on_redlock(plan: Plan) -> Outcome {
    let nodes = RedisNodes::start();
    let ports: Vec<_> = nodes.servers.iter().map(|server| away(server.port())).collect();
    redlock::contest(&ports, TASKS).await.measure(plan).await
}

async fn on_postgres(plan: Plan) -> Outcome {
    let server = PostgresServer::start();
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", away(server.port()));
    sql::in_postgres(&url, TASKS).await.measure(plan).await
}

async fn on_mariadb(plan: Plan) -> Outcome {
    let server = MariaDbServer::start();
    let url = format!("mysql://root@127.0.0.1:{}/dlock", away(server.port()));
    sql::in_mariadb(&url, TASKS).await.measure(plan).await
}

async fn on_zookeeper(plan: Plan) -> Outcome {
    let server = ZooKeeperServer::start();
    let contest: Contest = zookeeper::contest(away(server.port()), TASKS).await;
    contest.measure(plan).await
}

#[cfg(feature = "etcd")]
async fn on_etcd(plan: Plan) -> Outcome {
    let server = dlock_tests::servers::EtcdServer::start();
    crate::etcd::contest(away(server.port()), TASKS).await.measure(plan).await
}
