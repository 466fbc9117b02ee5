//! Many leases held by one process, which only renews them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dlock_benches::contender::count;
use dlock_benches::contest::Reading;
use dlock_benches::figure::{Figure, Unit, short};
use dlock_benches::outcome::Outcome;
use dlock_benches::row::{Family, Plan, Row};
use dlock_benches::usage;
use dlock_tests::servers::{PostgresServer, RedisServer, ZOOKEEPER, ZooKeeperServer};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::servers::{cpu_of, info_of};
use crate::worker::{self, number, percent};

/// How many tasks acquire at once.
const TASKS: usize = 64;

/// What the process is to hold.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Order {
    url: String,
    leases: usize,
}

pub fn rows() -> Vec<Row> {
    let row = |id: &str, title: &str| (format!("held-{id}"), format!("{title}, ttl 30 s"));
    let (id, title) = row("redis", "100,000 leases held on Redis");
    let redis = Row::new(Family::Idle, id, title, on_redis).needs("redis-server");
    let (id, title) = row("postgres", "10,000 leases held on PostgreSQL");
    let postgres = Row::new(Family::Idle, id, title, on_postgres).needs("postgres");
    let (id, title) = row("zookeeper", "10,000 leases held on ZooKeeper");
    let zookeeper = Row::new(Family::Idle, id, title, on_zookeeper).needs(ZOOKEEPER);
    let with_goals = |row: Row| {
        row.at_most(4.0, Unit::PercentOfACore, CLIENT)
            .at_most(4.0, Unit::PercentOfACore, SERVER)
            .at_most(1_024.0, Unit::Bytes, MEMORY)
            .at_most(0.0, Unit::Count, LOST)
    };
    [redis, postgres, zookeeper].map(with_goals).into()
}

const CLIENT: &str = "client CPU, of a core";
const SERVER: &str = "server CPU, of a core";
const MEMORY: &str = "client memory, each";
const LOST: &str = "leases lost";

async fn on_redis(plan: Plan) -> Outcome {
    let server = RedisServer::start();
    let leases = if plan.is_quick { 10_000 } else { 100_000 };
    let order = Order { url: server.url(), leases };
    measure(plan, order, info_of(&server)).await
}

async fn on_postgres(plan: Plan) -> Outcome {
    let server = PostgresServer::start();
    let order = Order { url: server.url(), leases: fewer(plan) };
    measure(plan, order, cpu_of([&server])).await
}

async fn on_zookeeper(plan: Plan) -> Outcome {
    let server = ZooKeeperServer::start();
    let order = Order { url: server.url_with(6_000), leases: fewer(plan) };
    measure(plan, order, cpu_of([&server])).await
}

fn fewer(plan: Plan) -> usize {
    if plan.is_quick { 1_000 } else { 10_000 }
}

async fn measure(plan: Plan, order: Order, mut probe: impl FnMut() -> Reading + Send) -> Outcome {
    let leases = order.leases;
    let mut holder = worker::start(&worker::Order::Hold(order));
    let acquired = holder.says().await;
    let (began, before) = (Instant::now(), probe());
    holder.tell("begin").await;
    tokio::time::sleep(plan.window).await;
    let after = probe();
    let window = began.elapsed();
    let held = holder.ask("end").await;
    holder.end().await;
    let cpu = Duration::from_secs_f64(number(&held, "cpu"));
    let mut figures = vec![
        Figure::new(CLIENT, percent(Duration::ZERO, cpu, window), Unit::PercentOfACore),
        Figure::new(SERVER, percent(before.cpu, after.cpu, window), Unit::PercentOfACore),
        Figure::new(MEMORY, number(&acquired, "memory"), Unit::Bytes),
        Figure::new(LOST, number(&held, "lost"), Unit::Count),
    ];
    if let (Some(before), Some(after)) = (before.commands, after.commands) {
        let rate = (after - before) / window.as_secs_f64();
        figures.push(Figure::new("commands, scripts' included", rate, Unit::PerSecond));
    }
    if let (Some(before), Some(after)) = (before.scripts, after.scripts) {
        let rate = (after - before) / window.as_secs_f64();
        figures.push(Figure::new("EVALSHA", rate, Unit::PerSecond));
    }
    let seconds = number(&acquired, "seconds");
    Outcome::alone(figures).note(format!(
        "{} leases, acquired in {seconds:.1} s and then held for {:.0} s",
        short(count(leases)),
        window.as_secs_f64()
    ))
}

/// The work of the process.
pub async fn work(order: Order) {
    let registry = Arc::new(crate::dlock::registry(&order.url).await);
    // Connections and buffers: as many as the leases will need.
    let warm = (0..TASKS).map(|task| {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            for _ in 0..20 {
                let lock = registry.lock(format!("warm:{task}"));
                lock.run(std::future::ready(())).await.expect("the lock");
            }
        })
    });
    join_all(warm.collect::<Vec<_>>()).await.into_iter().for_each(|task| task.expect("no panic"));
    let (began, before) = (Instant::now(), usage::resident_bytes());
    let tasks = (0..TASKS).map(|task| {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let mut guards = Vec::new();
            for lease in (task..order.leases).step_by(TASKS) {
                let guard = registry.lock(format!("held:{lease}")).acquire().await;
                guards.push(guard.expect("the lock"));
            }
            guards
        })
    });
    let guards = join_all(tasks.collect::<Vec<_>>()).await.into_iter();
    let guards: Vec<_> = guards.flat_map(|guards| guards.expect("no panic")).collect();
    let bytes = usage::resident_bytes().saturating_sub(before);
    let each = count(usize::try_from(bytes).unwrap_or(usize::MAX)) / count(order.leases);
    worker::report(&json!({ "memory": each, "seconds": began.elapsed().as_secs_f64() }));
    worker::next_line().await;
    let before = usage::cpu_time();
    worker::next_line().await;
    let cpu = usage::cpu_time().saturating_sub(before);
    let lost = guards.iter().filter(|guard| !guard.is_held()).count();
    worker::report(&json!({ "cpu": cpu.as_secs_f64(), "lost": lost }));
    worker::next_line().await;
}
