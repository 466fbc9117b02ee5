//! One key that everybody wants all the time, in one process and in several.

use std::sync::Arc;
use std::time::Duration;

use dlock_benches::contender::{Contender, Role, Slice, Turns, in_tasks_with_entries};
use dlock_benches::contest::{Contest, Reading};
use dlock_benches::figure::Unit;
use dlock_benches::outcome::Outcome;
use dlock_benches::program::Program;
use dlock_benches::row::{Family, Plan, Row};
use dlock_runtime::{Handover, Registry, Wait};
use dlock_tests::servers::{MariaDbServer, PostgresServer, RedisServer, installed};
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

/// sqlx's, on PostgreSQL.
const ADVISORY: &str = "PgAdvisoryLock, PostgreSQL";
const MUTEX: &str = "tokio::sync::Mutex";

/// A lock library on a server.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Library {
    Dlock,
    /// dlock, when no lease passes from task to task.
    DlockEach,
    Rslock,
    Advisory,
    /// In the memory of a process.
    Mutex,
}

/// What a worker process is to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Order {
    library: Library,
    url: String,
    tasks: u32,
}

impl Order {
    fn new(library: Library, url: impl Into<String>, tasks: u32) -> Self {
        Self { library, url: url.into(), tasks }
    }
}

pub fn rows() -> Vec<Row> {
    let each = TASKS / PROCESSES;
    let many = format!("{PROCESSES} processes with {each} tasks each");
    let row = |id: &str, title: String| (id.to_owned(), title);
    let [one, shared, released, postgres, sqlite, mariadb, memory] = [
        row("one-key-1x256", format!("Redis, 1 process with {TASKS} tasks")),
        row("one-key-8x32", format!("Redis, {many}")),
        row("one-key-8x32-off", format!("Redis, {many}, with `handover = \"off\"`")),
        row("one-key-postgres", format!("PostgreSQL, {many}")),
        row("one-key-sqlite", format!("SQLite, {PROCESSES} processes with 1 task each")),
        row("one-key-mariadb", "MariaDB, 2 processes with 1 task each".to_owned()),
        row("one-key-memory", format!("Memory, 1 process with {TASKS} tasks")),
    ];
    let (milliseconds, times) = (Unit::Milliseconds, Unit::Times);
    vec![
        Row::new(Family::Contended, one.0, one.1, in_one_process)
            .needs("redis-server")
            .at_least(20.0, RSLOCK)
            .at_least(20.0, ADVISORY)
            .at_most(0.1, Unit::Count, "commands"),
        Row::new(Family::Contended, shared.0, shared.1, in_processes)
            .needs("redis-server")
            .at_most(1.5, times, "luckiest")
            .at_most(100.0, milliseconds, "wait p99"),
        Row::new(Family::Contended, released.0, released.1, each_release).needs("redis-server"),
        Row::new(Family::Contended, postgres.0, postgres.1, on_postgres)
            .needs("postgres")
            .at_least(5.0, ADVISORY),
        Row::new(Family::Contended, sqlite.0, sqlite.1, on_sqlite).at_most(
            1.0,
            milliseconds,
            "hand-over p50",
        ),
        Row::new(Family::Contended, mariadb.0, mariadb.1, on_mariadb).needs("mariadbd").at_most(
            5.0,
            milliseconds,
            "hand-over p50",
        ),
        Row::new(Family::Contended, memory.0, memory.1, in_memory).at_least(0.5, MUTEX),
    ]
}

const OF_TASKS: &str =
    "hand-overs are those from one task to another one, luckiest is the task with most";
const OF_PROCESSES: &str =
    "hand-overs are those from one process to another one, luckiest is the process with most";

async fn in_one_process(plan: Plan) -> Outcome {
    let contender = async |order: Order| {
        let library = order.library;
        named(library, tasks_of(Order { tasks: TASKS, ..order }).await)
    };
    measure(plan, TASKS, contender).await.note(OF_TASKS)
}

async fn in_processes(plan: Plan) -> Outcome {
    let contender = async |order| several(Order { tasks: TASKS / PROCESSES, ..order }).await;
    measure(plan, PROCESSES, contender).await.note(OF_PROCESSES)
}

/// The tasks, in processes of their own.
async fn several(order: Order) -> Contender {
    let library = order.library;
    named(library, processes(PROCESSES, order).await).in_other_processes()
}

async fn measure(plan: Plan, sharing: u32, contender: impl AsyncFn(Order) -> Contender) -> Outcome {
    let server = RedisServer::start();
    let order = |library, url: String| Order::new(library, url, 0);
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

async fn each_release(plan: Plan) -> Outcome {
    let server = RedisServer::start();
    let order = Order::new(Library::DlockEach, server.url(), TASKS / PROCESSES);
    let contest = Contest::default().shared_by(PROCESSES).with(several(order).await);
    contest.probe(info_of(&server)).measure(plan).await.note(OF_PROCESSES)
}

async fn on_postgres(plan: Plan) -> Outcome {
    let server = PostgresServer::start();
    let order = |library| Order::new(library, server.url(), TASKS / PROCESSES);
    let contest = Contest::default()
        .shared_by(PROCESSES)
        .with(several(order(Library::Dlock)).await)
        .with(several(order(Library::Advisory)).await);
    contest.probe(cpu_of([&server])).measure(plan).await.note(OF_PROCESSES)
}

async fn on_sqlite(plan: Plan) -> Outcome {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("locks.db").display());
    let contender = several(Order::new(Library::Dlock, url, 1)).await;
    Contest::default().shared_by(PROCESSES).with(contender).measure(plan).await.note(OF_PROCESSES)
}

async fn on_mariadb(plan: Plan) -> Outcome {
    let server = MariaDbServer::start();
    let order = Order::new(Library::Dlock, server.url(), 1);
    let contender = named(order.library, processes(2, order).await).in_other_processes();
    let contest = Contest::default().shared_by(2).with(contender);
    contest.probe(cpu_of([&server])).measure(plan).await.note(OF_PROCESSES)
}

async fn in_memory(plan: Plan) -> Outcome {
    let order = |library| Order::new(library, "memory:", TASKS);
    let contest = Contest::default()
        .shared_by(TASKS)
        .with(named(Library::Dlock, tasks_of(order(Library::Dlock)).await))
        .with(named(Library::Mutex, tasks_of(order(Library::Mutex)).await));
    contest.measure(plan).await.note(OF_TASKS)
}

type Run = Box<dyn Fn(Duration) -> futures_util::future::BoxFuture<'static, Slice> + Send + Sync>;

fn named(library: Library, run: Run) -> Contender {
    match library {
        Library::Dlock | Library::DlockEach => Contender::dlock(run),
        Library::Rslock => Contender::new(Role::Peer, RSLOCK, run)
            .remark("tries again after a random pause of up to 200 ms, so whoever has just released it is the first to have it again"),
        Library::Advisory => Contender::new(Role::Peer, ADVISORY, run)
            .remark("sqlx's, with ten connections for each process"),
        Library::Mutex => Contender::new(Role::Peer, MUTEX, run),
    }
}

/// The tasks, in this process.
async fn tasks_of(order: Order) -> Run {
    match order.library {
        Library::Dlock | Library::DlockEach => {
            let handover = match order.library {
                Library::DlockEach => Handover::OFF,
                _ => Handover::DEFAULT,
            };
            let registry = crate::dlock::registry_with(&order.url, handover).await;
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
        Library::Mutex => {
            let lock = Arc::new(Mutex::new(()));
            let task = move |_, turns| with_mutex(Arc::clone(&lock), turns);
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

async fn with_mutex(lock: Arc<Mutex<()>>, mut turns: Turns) -> Turns {
    while turns.again() {
        let held = lock.lock().await;
        turns.inside();
        drop(held);
    }
    turns
}

/// The tasks, in so many processes of their own.
async fn processes(number: u32, order: Order) -> Run {
    let start = || worker::start(&worker::Order::Contend(order.clone()));
    let mut workers: Vec<_> = (0..number).map(|_| start()).collect();
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
