//! Many waiters and many readers on Redis, while nothing changes.

use std::future::pending;
use std::time::{Duration, Instant};

use dlock_benches::contender::count;
use dlock_benches::figure::{Figure, Unit};
use dlock_benches::outcome::Outcome;
use dlock_benches::program::Program;
use dlock_benches::row::{Family, Plan, Row};
use dlock_benches::usage;
use dlock_runtime::{LockGuard, Mode, Registry, Wait};
use dlock_tests::servers::RedisServer;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dlock::registry;
use crate::servers::info_of;
use crate::worker::{self, number, percent};

const KEY: &str = "one";
/// So long that no holder renews while the waiters are watched.
const LONG: Duration = Duration::from_hours(1);

const BEYOND_FUTURE: &str = "memory beyond the future of the acquire, each";
const SERVER: &str = "server CPU, of a core";
const COMMANDS: &str = "commands while nothing changes";
const OVERTAKEN: &str = "waiters overtaken";

/// What a process of waiters is to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Order {
    url: String,
    tasks: u32,
    keys: u32,
}

pub fn rows() -> Vec<Row> {
    let waiters = "100,000 tasks of one process that wait for 1,000 keys";
    let fair = "400 fair waiters in 8 processes on one key";
    let readers = "300 readers that hold one key";
    vec![
        Row::new(Family::Idle, "waiters", waiters, waiters_of_one_process)
            .needs("redis-server")
            .at_most(1_024.0, Unit::Bytes, BEYOND_FUTURE),
        Row::new(Family::Idle, "fair-waiters", fair, fair_waiters)
            .needs("redis-server")
            .at_most(15.0, Unit::PercentOfACore, SERVER)
            .at_most(0.0, Unit::Count, OVERTAKEN),
        Row::new(Family::Idle, "readers", readers, readers_of_one_key)
            .needs("redis-server")
            .at_most(15.0, Unit::PercentOfACore, SERVER),
    ]
}

/// How long nothing changes.
fn window(plan: Plan) -> Duration {
    Duration::from_secs(if plan.is_quick { 2 } else { 10 })
}

/// What the server does in a span of time.
async fn watch(server: &RedisServer, window: Duration) -> Vec<Figure> {
    let mut probe = info_of(server);
    let (began, before) = (Instant::now(), probe());
    tokio::time::sleep(window).await;
    let (after, window) = (probe(), began.elapsed());
    let commands =
        after.commands.zip(before.commands).map_or(0.0, |(after, before)| after - before);
    vec![
        Figure::new(SERVER, percent(before.cpu, after.cpu, window), Unit::PercentOfACore),
        Figure::new(COMMANDS, commands / window.as_secs_f64(), Unit::PerSecond),
    ]
}

async fn hold(registry: &Registry, key: String) -> LockGuard {
    registry.lock(key).ttl(LONG).acquire().await.expect("the lock")
}

async fn waiters_of_one_process(plan: Plan) -> Outcome {
    let server = RedisServer::start();
    let (tasks, keys): (u32, u32) = if plan.is_quick { (20_000, 200) } else { (100_000, 1_000) };
    let mut idle = worker::start(&worker::Order::Idle { tasks });
    let idle_bytes = number(&idle.says().await, "memory");
    idle.end().await;
    let registry = registry(&server.url()).await;
    let held = join_all((0..keys).map(|key| hold(&registry, format!("key:{key}")))).await;
    let order = Order { url: server.url(), tasks, keys };
    let mut waiters = worker::start(&worker::Order::Wait(order));
    let report = waiters.says().await;
    let quiet = watch(&server, window(plan)).await;
    waiters.end().await;
    drop(held);
    let (all, future) = (number(&report, "memory"), number(&report, "future"));
    let mut figures = vec![
        Figure::new(BEYOND_FUTURE, all - idle_bytes - future, Unit::Bytes),
        Figure::new("the future", future, Unit::Bytes),
    ];
    figures.extend(quiet);
    Outcome::alone(figures).note(format!(
        "{tasks} tasks, {keys} keys; an idle task of tokio's takes {idle_bytes:.0} B more"
    ))
}

/// Waits for keys that another process holds.
pub async fn wait(order: Order) {
    let registry = registry(&order.url).await;
    registry.lock("first").run(std::future::ready(())).await.expect("the lock");
    let waiter = |task: u32| {
        let lock = registry.lock(format!("key:{}", task % order.keys)).wait(Wait::Forever);
        async move {
            let _guard = lock.acquire().await.expect("the lock");
        }
    };
    let future = size_of_val(&waiter(0));
    let before = usage::resident_bytes();
    for task in 0..order.tasks {
        tokio::spawn(waiter(task));
    }
    let memory = settled_bytes(before, order.tasks).await;
    worker::report(&json!({ "memory": memory, "future": future }));
    worker::next_line().await;
}

/// Has tasks that do nothing.
pub async fn idle(tasks: u32) {
    let before = usage::resident_bytes();
    for _ in 0..tasks {
        tokio::spawn(pending::<()>());
    }
    let memory = settled_bytes(before, tasks).await;
    worker::report(&json!({ "memory": memory }));
    worker::next_line().await;
}

/// The memory of each task, once it does not change any more.
async fn settled_bytes(before: u64, tasks: u32) -> f64 {
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let bytes = usage::resident_bytes();
        if bytes == last {
            let bytes = usize::try_from(bytes.saturating_sub(before)).unwrap_or(usize::MAX);
            return count(bytes) / f64::from(tasks);
        }
        last = bytes;
    }
}

async fn fair_waiters(plan: Plan) -> Outcome {
    let server = RedisServer::start();
    let registry = registry(&server.url()).await;
    let held = hold(&registry, KEY.to_owned()).await;
    let start = || worker::start(&worker::Order::LineUp { url: server.url() });
    let mut processes: Vec<_> = (0..8).map(|_| start()).collect();
    let waiters = if plan.is_quick { 80 } else { 400 };
    for waiter in 0..waiters {
        processes[waiter % 8].tell(&waiter.to_string()).await;
        while queue_length(&registry).await <= waiter {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut figures = watch(&server, window(plan)).await;
    let began = Instant::now();
    held.release().await.expect("it was held");
    let mut entered = Vec::new();
    for process in &mut processes {
        entered.extend(entries(process).await);
    }
    let took = began.elapsed();
    entered.sort_by_key(|(at, _)| *at);
    let overtaken = entered.windows(2).filter(|pair| pair[0].1 > pair[1].1).count();
    assert_eq!(entered.len(), waiters, "all had the lock");
    figures.push(Figure::new(OVERTAKEN, count(overtaken), Unit::Count));
    let each = took.as_secs_f64() * 1e3 / count(waiters);
    figures.push(Figure::new("hand-over, each", each, Unit::Milliseconds));
    Outcome::alone(figures).note(format!("{waiters} waiters, lined up one after the other"))
}

async fn queue_length(registry: &Registry) -> usize {
    let locks = registry.inspect(KEY).await.expect("the server runs");
    locks.iter().map(|lock| lock.waiters.len()).sum()
}

/// When the waiters of a process had the lock, with their numbers.
async fn entries(process: &mut Program) -> Vec<(u64, u64)> {
    let report: Value = serde_json::from_str(&process.ask("report").await).expect("a report");
    let entries = report.as_array().into_iter().flatten();
    entries.filter_map(|entry| Some((entry[0].as_u64()?, entry[1].as_u64()?))).collect()
}

/// Lines up a task for each number that it is told.
pub async fn line_up(url: String) {
    let registry = registry(&url).await;
    let mut waiters = Vec::new();
    while let Some(line) = worker::next_line().await {
        let Ok(number) = line.parse::<u64>() else { break };
        let lock = registry.lock(KEY).fair(true).wait(Wait::Forever);
        waiters.push(tokio::spawn(async move {
            lock.run(async { (usage::monotonic(), number) }).await.expect("the lock")
        }));
    }
    let entered = join_all(waiters).await.into_iter().map(|entry| entry.expect("no panic"));
    worker::report(&entered.collect::<Vec<_>>());
    worker::next_line().await;
}

async fn readers_of_one_key(plan: Plan) -> Outcome {
    let server = RedisServer::start();
    let (url, tasks) = (server.url(), 300);
    let mut readers = worker::start(&worker::Order::Share { url, tasks });
    readers.says().await;
    let figures = watch(&server, window(plan)).await;
    readers.end().await;
    Outcome::alone(figures).note("ttl 30 s, one process")
}

/// Holds one key together.
pub async fn share(url: String, tasks: u32) {
    let registry = registry(&url).await;
    let mut guards = Vec::new();
    for _ in 0..tasks {
        let guard = registry.lock(KEY).mode(Mode::Shared).acquire().await;
        guards.push(guard.expect("the lock"));
    }
    worker::report(&"ready");
    worker::next_line().await;
}
