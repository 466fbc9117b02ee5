//! One key that everybody wants all the time, in one process and in several.

use std::sync::Arc;
use std::time::Duration;

use dlock_benches::contender::{Contender, Role, Slice, Turns, in_tasks_with_entries};
use dlock_benches::contest::{Contest, Reading};
use dlock_benches::outcome::Outcome;
use dlock_benches::program::Program;
use dlock_benches::row::{Family, Plan, Row};
use dlock_runtime::{Registry, Wait};
use dlock_tests::servers::{PostgresServer, RedisServer, installed};
use futures_util::future::join_all;
use rslock::LockManager;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::redis::{RSLOCK, TTL};
use crate::servers::{cpu_of, info_of};
use crate::sql::Advisory;
use crate::worker;

const KEY: &str = "one";
const TASKS: u32 = 256;
const PROCESSES: u32 = 8;

/// A lock library on a server.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Library {
    Dlock,
    Rslock,
    Advisory,
}

/// What a worker process is to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Order {
    library: Library,
    url: String,
    tasks: u32,
}

pub fn rows() -> Vec<Row> {
    let one = format!("Redis, 1 process with {TASKS} tasks");
    let many = format!("Redis, {PROCESSES} processes with {} tasks each", TASKS / PROCESSES);
    vec![
        Row::new(Family::Contended, "one-key-1x256", one, in_one_process).needs("redis-server"),
        Row::new(Family::Contended, "one-key-8x32", many, in_processes).needs("redis-server"),
    ]
}

async fn in_one_process(plan: Plan) -> Outcome {
    measure(plan, TASKS, async |order| {
        let order = Order { tasks: TASKS, ..order };
        let library = order.library;
        named(library, tasks_of(order).await)
    })
    .await
    .note("hand-overs are those from one task to another one, luckiest is the task with most")
}

async fn in_processes(plan: Plan) -> Outcome {
    measure(plan, PROCESSES, async |order| {
        let order = Order { tasks: TASKS / PROCESSES, ..order };
        let library = order.library;
        named(library, processes(order).await).in_other_processes()
    })
    .await
    .note("hand-overs are those from one process to another one, luckiest is the process with most")
}

async fn measure(plan: Plan, sharing: u32, contender: impl AsyncFn(Order) -> Contender) -> Outcome {
    let server = RedisServer::start();
    let order = |library, url| Order { library, url, tasks: 0 };
    let contest = Contest::default()
        .shared_by(sharing)
        .with(contender(order(Library::Dlock, server.url())).await)
        .with(contender(order(Library::Rslock, server.url())).await);
    let mut redis = info_of(&server);
    if !installed("postgres") {
        let outcome = contest.probe(redis).measure(plan).await;
        return outcome.note("without PostgreSQL, which is not installed");
    }
    let postgres = PostgresServer::start();
    let contest = contest.with(contender(order(Library::Advisory, postgres.url())).await);
    // Whichever server the contender of the moment is on: the other one is idle.
    let mut other = cpu_of([&postgres]);
    let both = move || {
        let reading = redis();
        Reading { cpu: reading.cpu + other().cpu, ..reading }
    };
    contest.probe(both).measure(plan).await
}

type Run = Box<dyn Fn(Duration) -> futures_util::future::BoxFuture<'static, Slice> + Send + Sync>;

fn named(library: Library, run: Run) -> Contender {
    match library {
        Library::Dlock => Contender::dlock(run),
        Library::Rslock => Contender::new(Role::Peer, RSLOCK, run)
            .remark("tries again after a random pause of up to 200 ms, so whoever has just released it is the first to have it again"),
        Library::Advisory => Contender::new(Role::Peer, "PgAdvisoryLock, PostgreSQL", run)
            .remark("sqlx's, with ten connections for each process"),
    }
}

/// The tasks, in this process.
async fn tasks_of(order: Order) -> Run {
    match order.library {
        Library::Dlock => {
            let registry = crate::dlock::registry(&order.url).await;
            let task = move |_, turns| with_dlock(registry.clone(), turns);
            Box::new(in_tasks_with_entries(order.tasks, task))
        }
        Library::Rslock => {
            let manager = LockManager::new(vec![order.url]);
            let task = move |_, turns| with_rslock(manager.clone(), turns);
            Box::new(in_tasks_with_entries(order.tasks, task))
        }
        Library::Advisory => {
            let locks = Advisory::connect(&order.url).await;
            let task = move |_, turns| locks.clone().repeat(KEY.to_owned(), turns);
            Box::new(in_tasks_with_entries(order.tasks, task))
        }
    }
}

async fn with_dlock(registry: Registry, mut turns: Turns) -> Turns {
    while turns.again() {
        let lock = registry.lock(KEY).wait(Wait::Forever);
        lock.run(async { turns.inside() }).await.expect("the lock");
    }
    turns
}

async fn with_rslock(manager: LockManager, mut turns: Turns) -> Turns {
    while turns.again() {
        let held = manager.acquire(KEY, TTL).await.expect("the lock");
        turns.inside();
        held.release().await;
    }
    turns
}

/// The tasks, in processes of their own.
async fn processes(order: Order) -> Run {
    let start = || worker::start(&worker::Order::Contend(order.clone()));
    let mut workers: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
    for worker in &mut workers {
        assert_eq!(worker.says().await, "\"ready\"");
    }
    let workers = Arc::new(Mutex::new(workers));
    Box::new(move |length| {
        let workers = Arc::clone(&workers);
        Box::pin(async move { slice(&mut workers.lock().await, length).await })
    })
}

async fn slice(workers: &mut [Program], length: Duration) -> Slice {
    let length = length.as_millis().to_string();
    for worker in &mut *workers {
        worker.tell(&length).await;
    }
    let answers = join_all(workers.iter_mut().map(Program::says)).await;
    let slices = (0..).zip(answers).map(|(process, answer)| {
        let mut slice: Slice = serde_json::from_str(&answer).expect("a slice");
        slice.entries.iter_mut().for_each(|entry| entry.who = process);
        slice
    });
    slices.collect()
}

/// The work of a process.
pub async fn work(order: Order) {
    let run = tasks_of(order).await;
    worker::report(&"ready");
    while let Some(length) = worker::next_line().await {
        let length = Duration::from_millis(length.parse().expect("milliseconds"));
        worker::report(&run(length).await);
    }
}
