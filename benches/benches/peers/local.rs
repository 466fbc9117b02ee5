//! Stores without a server: SQLite, and the memory of one process.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure as allocations_of;
use dlock_benches::contender::{Contender, Role, in_tasks};
use dlock_benches::contest::Contest;
use dlock_benches::figure::{Figure, Spread, Unit};
use dlock_benches::outcome::{Outcome, Side};
use dlock_benches::row::{Family, Plan, Row};
use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, OwnerId, Registry, distributed_lock};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Executor};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use crate::dlock;
use crate::sql::LIMIT;

pub fn rows() -> Vec<Row> {
    let sqlite = |tasks: u32| {
        let title = format!("SQLite, {tasks} task{}", if tasks == 1 { "" } else { "s" });
        let id = format!("sqlite-{tasks}");
        Row::new(Family::Alone, id, title, move |plan| sqlite(plan, tasks)).at_least(0.8, LIMIT)
    };
    vec![
        sqlite(1),
        sqlite(64),
        Row::new(Family::Alone, "memory", "Memory, the attribute, 1 task", memory)
            .at_most(700.0, Unit::Nanoseconds, "time")
            .at_most(4.0, Unit::Count, "allocations"),
    ]
}

async fn sqlite(plan: Plan, tasks: u32) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", folder.path().join("locks.db").display());
    let outcome = Contest::default()
        .with(dlock::alone(&url, tasks).await)
        .with(raw_sqlite(&folder.path().join("raw.db"), tasks).await)
        .measure(plan)
        .await;
    outcome.note("WAL mode, `synchronous = NORMAL` on both sides, one writing connection")
}

const TABLE: &str = "CREATE TABLE bare (
    key TEXT PRIMARY KEY, owner BLOB, token INTEGER NOT NULL, expires_us INTEGER NOT NULL) WITHOUT ROWID";
const NOW: &str = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)";
const RELEASE: &str = "UPDATE bare SET owner = NULL, expires_us = 0 WHERE key = ?1 AND owner = ?2";

async fn raw_sqlite(file: &Path, tasks: u32) -> Contender {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal);
    let options = options.synchronous(SqliteSynchronous::Normal).disable_statement_logging();
    let mut connection = options.connect().await.expect("a file");
    connection.execute(TABLE).await.expect("a table");
    let connection = Arc::new(Mutex::new(connection));
    let acquire: &'static str = format!(
        "INSERT INTO bare VALUES (?1, ?2, 1, {NOW} + 30000000)
         ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, token = token + 1, expires_us = excluded.expires_us
         WHERE expires_us < {NOW} RETURNING token"
    )
    .leak();
    let run = in_tasks(tasks, move |task, mut turns| {
        let connection = Arc::clone(&connection);
        async move {
            let key = format!("bare:{task}");
            while turns.again() {
                cycle(&connection, acquire, &key).await.expect("a disk");
            }
            turns
        }
    });
    Contender::new(Role::Limit, LIMIT, run)
}

async fn cycle(
    connection: &Mutex<SqliteConnection>,
    acquire: &'static str,
    key: &str,
) -> sqlx::Result<()> {
    let owner = OwnerId::random();
    let acquire = sqlx::query(acquire).bind(key).bind(&owner.as_bytes()[..]);
    acquire.fetch_one(&mut *connection.lock().await).await?;
    let release = sqlx::query(RELEASE).bind(key).bind(&owner.as_bytes()[..]);
    let released = release.execute(&mut *connection.lock().await).await?;
    assert_eq!(released.rows_affected(), 1, "it was held");
    Ok(())
}

#[distributed_lock(key = "product:<id>")]
async fn annotated(id: u64) -> Result<u64, LockError> {
    Ok(id)
}

async fn under_a_mutex(mutex: &Mutex<()>, id: u64) -> u64 {
    let _guard = mutex.lock().await;
    id
}

/// How many calls are timed together.
const BATCH: u32 = 2_000;

/// On a runtime of one thread, in a thread of its own.
async fn memory(plan: Plan) -> Outcome {
    let measured = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        Registry::builder().backend("memory", Memory::new()).install().expect("a registry");
        let mutex = Mutex::new(());
        let ours = || async {
            black_box(annotated(7).await.expect("free"));
        };
        let theirs = || async {
            black_box(under_a_mutex(&mutex, 7).await);
        };
        // Grows the maps, and starts the watchdog.
        let _ = (time(&runtime, ours), time(&runtime, theirs));
        let rounds = (0..plan.rounds * 20).map(|_| [time(&runtime, ours), time(&runtime, theirs)]);
        let (ours_ns, theirs_ns): (Vec<_>, Vec<_>) = rounds.map(|[a, b]| (a, b)).unzip();
        let counted = [count(&runtime, ours), count(&runtime, theirs)];
        (ours_ns, theirs_ns, counted)
    });
    let (ours_ns, theirs_ns, [ours, theirs]) = measured.await.expect("no panic");
    let ratios = ours_ns.iter().zip(&theirs_ns).map(|(ours, theirs)| theirs / ours);
    let ratio = Spread::of(ratios.collect());
    let sides = vec![
        side(Role::Dlock, "dlock", None, ours_ns, ours),
        side(Role::Peer, "tokio::sync::Mutex", Some(ratio), theirs_ns, theirs),
    ];
    Outcome { sides, notes: vec![] }
        .note("distributed-lock is not in this row: it has no store in memory")
}

fn side(role: Role, name: &str, ratio: Option<Spread>, times: Vec<f64>, allocations: f64) -> Side {
    let rate = Spread::of(times.iter().map(|time| 1e9 / time).collect());
    let figures = vec![
        Figure::new("time", Spread::of(times).median, Unit::Nanoseconds),
        Figure::new("allocations", allocations, Unit::Count),
    ];
    Side { name: name.to_owned(), role, remark: "", rate: Some(rate), ratio, figures }
}

/// The nanoseconds of a call.
fn time<F: Future<Output = ()>>(runtime: &Runtime, call: impl Fn() -> F) -> f64 {
    runtime.block_on(async {
        let began = Instant::now();
        for _ in 0..BATCH {
            call().await;
        }
        per_call(began.elapsed())
    })
}

fn per_call(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(BATCH)
}

/// The allocations of a call.
fn count<F: Future<Output = ()>>(runtime: &Runtime, call: impl Fn() -> F) -> f64 {
    let counted = allocations_of(|| {
        runtime.block_on(async {
            for _ in 0..BATCH {
                call().await;
            }
        });
    });
    // What the runtime allocates for the whole batch does not count.
    (f64::from(u32::try_from(counted.count_total).unwrap_or(u32::MAX)) / f64::from(BATCH)).floor()
}
