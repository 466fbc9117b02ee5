//! What stays in a store a minute after many different keys were locked once each.

use std::time::{Duration, Instant};

use dlock_benches::contender::count;
use dlock_benches::figure::{Figure, Unit, short};
use dlock_benches::outcome::Outcome;
use dlock_benches::row::{Family, Plan, Row};
use dlock_runtime::Registry;
use dlock_tests::servers::{PostgresServer, RedisServer};
use futures_util::future::join_all;
use sqlx::{Connection, PgConnection};

use crate::dlock::registry;
use crate::servers::number;

const TASKS: usize = 64;
const LEFT: &str = "left";
const MEBIBYTE: f64 = 1_048_576.0;

pub fn rows() -> Vec<Row> {
    let redis = row("redis", "Redis", in_redis).needs("redis-server");
    let postgres = row("postgres", "PostgreSQL", in_postgres).needs("postgres");
    #[cfg(feature = "etcd")]
    let etcd = Some(row("etcd", "etcd", in_etcd).needs("etcd"));
    #[cfg(not(feature = "etcd"))]
    let etcd = None;
    [redis, postgres].into_iter().chain(etcd).collect()
}

fn row<Running>(id: &str, store: &str, run: impl Fn(Plan) -> Running + Send + Sync + 'static) -> Row
where
    Running: Future<Output = Outcome> + Send + 'static,
{
    let title = format!("{store}, a minute after each key was locked once");
    let row = Row::new(Family::Leftovers, format!("leftovers-{id}"), title, run);
    row.at_most(MEBIBYTE, Unit::Bytes, LEFT)
}

/// How many keys, if a store takes so many in a run of usual length.
fn keys(plan: Plan, usual: usize) -> usize {
    match plan {
        Plan { all_leftovers: true, .. } => 1_000_000,
        Plan { is_quick: true, .. } => usual / 10,
        _ => usual,
    }
}

/// Locks each key once, and waits.
async fn lock_each(plan: Plan, registry: &Registry, keys: usize) {
    let tasks = (0..TASKS).map(|task| {
        let registry = registry.clone();
        tokio::spawn(async move {
            for key in (task..keys).step_by(TASKS) {
                let lock = registry.lock(format!("order:{key}"));
                lock.run(std::future::ready(())).await.expect("the lock");
            }
        })
    });
    for task in join_all(tasks.collect::<Vec<_>>()).await {
        task.expect("no panic");
    }
    tokio::time::sleep(Duration::from_secs(if plan.is_quick { 3 } else { 60 })).await;
}

fn outcome(plan: Plan, keys: usize, before: f64, after: f64, took: Duration) -> Outcome {
    let left = (after - before).max(0.0);
    let waited = if plan.is_quick { "3 seconds" } else { "a minute" };
    let figures = vec![
        Figure::new(LEFT, left, Unit::Bytes),
        Figure::new("for each key", left / count(keys), Unit::Bytes),
    ];
    Outcome::alone(figures).note(format!(
        "{} keys, after {waited}; {:.0} s in all",
        short(count(keys)),
        took.as_secs_f64()
    ))
}

async fn in_redis(plan: Plan) -> Outcome {
    let server = RedisServer::start();
    let registry = registry(&server.url()).await;
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("it runs");
    let mut used = async || {
        let info = redis::cmd("INFO").arg("memory").query_async::<String>(&mut connection).await;
        number(&info.expect("it runs"), "used_memory").expect("INFO has it")
    };
    registry.lock("first").run(std::future::ready(())).await.expect("the lock");
    let keys = keys(plan, 200_000);
    let (began, before) = (Instant::now(), used().await);
    lock_each(plan, &registry, keys).await;
    outcome(plan, keys, before, used().await, began.elapsed())
}

/// The tables, their indexes included.
const TABLES: &str = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')";

async fn in_postgres(plan: Plan) -> Outcome {
    let server = PostgresServer::start();
    let registry = registry(&server.url()).await;
    let mut connection = PgConnection::connect(&server.url()).await.expect("the server runs");
    let mut used = async || {
        let sum = sqlx::query_scalar::<_, f64>(TABLES).fetch_one(&mut connection).await;
        sum.expect("it runs")
    };
    registry.lock("first").run(std::future::ready(())).await.expect("the lock");
    let keys = keys(plan, 20_000);
    let (began, before) = (Instant::now(), used().await);
    lock_each(plan, &registry, keys).await;
    let outcome = outcome(plan, keys, before, used().await, began.elapsed());
    outcome.note("tables and indexes as files; PostgreSQL reuses their empty pages")
}

#[cfg(feature = "etcd")]
async fn in_etcd(plan: Plan) -> Outcome {
    let server = dlock_tests::servers::EtcdServer::start();
    let registry = registry(&server.url()).await;
    let address = format!("127.0.0.1:{}", server.port());
    let mut client = etcd_client::Client::connect([address], None).await.expect("it runs");
    // What etcd keeps until it is compacted is history: each service compacts in its own way.
    let mut used = async || {
        let revision =
            client.status().await.expect("it runs").header().expect("a header").revision();
        let physical = etcd_client::CompactionOptions::new().with_physical();
        client.compact(revision, Some(physical)).await.expect("it runs");
        client.defragment().await.expect("it runs");
        let size = client.status().await.expect("it runs").db_size();
        count(usize::try_from(size).unwrap_or_default())
    };
    registry.lock("first").run(std::future::ready(())).await.expect("the lock");
    let keys = keys(plan, 20_000);
    let (began, before) = (Instant::now(), used().await);
    lock_each(plan, &registry, keys).await;
    let outcome = outcome(plan, keys, before, used().await, began.elapsed());
    outcome.note("after a compaction and a defragmentation")
}
