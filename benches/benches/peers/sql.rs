//! PostgreSQL and MariaDB. The limit is an upsert and an update over the same client, with as many
//! connections as dlock has for its acquires.

mod connections;
mod mariadb;
mod postgres;

use dlock_benches::contest::Contest;
use dlock_benches::outcome::Outcome;
use dlock_benches::row::{Family, Plan, Row};
use dlock_tests::servers::{MariaDbServer, PostgresServer};

use crate::dlock;
use crate::servers::cpu_of;

pub use self::postgres::Advisory;

/// The limit's name.
pub const LIMIT: &str = "upsert, update";

/// What dlock has by default.
const CONNECTIONS: usize = 10;

/// The servers answer once a commit has reached the kernel, so that the disk is no part of the measurement.
const IN_KERNEL: &str = "commits wait for the kernel, not for the disk (`fsync = off`)";
const ON_DISK: &str = "each commit waits for the disk";

pub fn rows() -> Vec<Row> {
    let title = |name: &str, tasks: u32| match tasks {
        1 => format!("{name}, 1 task"),
        _ => format!("{name}, {tasks} tasks"),
    };
    let on_postgres = |tasks| {
        let (id, title) = (format!("postgres-{tasks}"), title("PostgreSQL", tasks));
        Row::new(Family::Alone, id, title, move |plan| postgres(plan, tasks, "off"))
            .needs("postgres")
    };
    let on_mariadb = |tasks| {
        let (id, title) = (format!("mariadb-{tasks}"), title("MariaDB", tasks));
        Row::new(Family::Alone, id, title, move |plan| mariadb(plan, tasks)).needs("mariadbd")
    };
    let on_disk = "PostgreSQL with fsync, 64 tasks";
    vec![
        on_postgres(1).at_least(0.8, LIMIT),
        on_postgres(64).at_least(1.3, LIMIT),
        Row::new(Family::Alone, "postgres-disk-64", on_disk, |plan| postgres(plan, 64, "on"))
            .needs("postgres")
            .at_least(1.3, LIMIT),
        on_mariadb(1),
        on_mariadb(64).at_least(1.2, LIMIT),
    ]
}

async fn postgres(plan: Plan, tasks: u32, fsync: &str) -> Outcome {
    let server = PostgresServer::start_with(&[("fsync", fsync), ("synchronous_commit", "on")]);
    let contest = in_postgres(&server.url(), tasks).await.probe(cpu_of([&server]));
    contest.measure(plan).await.note(if fsync == "on" { ON_DISK } else { IN_KERNEL })
}

async fn mariadb(plan: Plan, tasks: u32) -> Outcome {
    let server = MariaDbServer::start();
    let contest = in_mariadb(&server.url(), tasks).await.probe(cpu_of([&server]));
    let note =
        "commits wait for the kernel, not for the disk (`innodb_flush_log_at_trx_commit = 2`)";
    contest.measure(plan).await.note(note)
}

/// All contenders on this PostgreSQL server.
pub async fn in_postgres(url: &str, tasks: u32) -> Contest {
    Contest::default()
        .with(dlock::alone(url, tasks).await)
        .with(postgres::limit(url, tasks).await)
        .with(postgres::advisory(url, tasks).await)
}

/// All contenders on this MariaDB server.
pub async fn in_mariadb(url: &str, tasks: u32) -> Contest {
    Contest::default().with(dlock::alone(url, tasks).await).with(mariadb::limit(url, tasks).await)
}
