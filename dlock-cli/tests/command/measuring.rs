//! `dlock bench`: what it prints, and that it leaves nothing behind. How fast a store is, no test can know.

use std::process::Stdio;

use dlock_tests::trials::Trials;
use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::{Connection as _, MySqlConnection, PgConnection, SqliteConnection};

use crate::dlock::{Bench, Running, complete, text, until};
use crate::stores::{OnMariaDb, OnPostgres, OnRedis, OnSqlite, OnZooKeeper, Store};
use crate::tmux::Terminal;

pub fn add(trials: &mut Trials) {
    on_each!(trials, measuring:
        it_prints_all_rows_and_leaves_nothing,
        a_signal_ends_it_and_leaves_nothing,
    );
    let test = it_prints_all_rows_and_leaves_nothing::<OnMariaDb>;
    trials.needs("mariadbd", "mariadb_it_prints_all_rows_and_leaves_nothing", test);
    let test = a_store_without_a_known_limit_says_so;
    trials.needs("java", "a_store_without_a_known_limit_says_so", test);
    let test = it_is_refused_unless_somebody_agrees;
    trials.add("it_is_refused_unless_somebody_agrees", test);
    trials.needs("tmux", "it_asks_on_a_terminal", it_asks_on_a_terminal);
}

const SHORT: [&str; 8] = ["bench", "--yes", "--seconds", "0.3", "--keys", "3", "--waiters", "2"];

/// A store that shows what is in it.
pub trait Contents: Store {
    /// The names of all locks, free ones too.
    fn names(&self) -> impl Future<Output = Vec<String>> + Send;
}

impl Contents for OnSqlite {
    async fn names(&self) -> Vec<String> {
        let mut file = SqliteConnection::connect(&self.url()).await.expect("a file");
        let names = sqlx::query_scalar("SELECT key FROM dlock_locks");
        names.fetch_all(&mut file).await.expect("its table")
    }
}

impl Contents for OnRedis {
    async fn names(&self) -> Vec<String> {
        let names = self.server().cli(&["KEYS", "*"]);
        names.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }
}

impl Contents for OnPostgres {
    async fn names(&self) -> Vec<String> {
        let mut server = PgConnection::connect(&self.url()).await.expect("a server");
        let names =
            "SELECT lock_key FROM dlock_leases UNION ALL SELECT lock_key FROM dlock_leases_line";
        sqlx::query_scalar(names).fetch_all(&mut server).await.expect("its tables")
    }
}

impl Contents for OnMariaDb {
    async fn names(&self) -> Vec<String> {
        let mut server = MySqlConnection::connect(&self.url()).await.expect("a server");
        let names = sqlx::query_scalar("SELECT CAST(lock_key AS CHAR) FROM dlock_leases");
        names.fetch_all(&mut server).await.expect("its table")
    }
}

impl<S: Contents> Bench<S> {
    async fn has_nothing_left(&self) {
        // Redis forgets who waited a moment later.
        for _ in 0..100 {
            let names = self.store.names().await;
            if !names.iter().any(|name| name.contains("bench")) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("left: {:?}", self.store.names().await);
    }
}

pub async fn it_prints_all_rows_and_leaves_nothing<S: Contents>() {
    let bench = Bench::<S>::new();
    let done = complete(&mut bench.on_store(&SHORT));
    let shown = text(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    let rows = [
        "a read ",
        "acquire and release, 1 task ",
        "the same, 3 tasks on 3 keys ",
        "hand-over of a key, 2 connections ",
    ];
    for row in rows {
        let row = shown.lines().find(|line| line.starts_with(row)).unwrap_or_default();
        let cells: Vec<_> = row.split_whitespace().rev().take(7).collect();
        assert!(cells.len() == 7 && !cells.contains(&"-"), "all are measured:\n{shown}");
    }
    assert!(shown.contains("\nLIMIT: "), "{shown}");
    bench.has_nothing_left().await;

    let done = complete(bench.on_store(&SHORT).arg("--json"));
    let json: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let measured = json["measurements"].as_array().expect("an array");
    let names: Vec<_> = measured.iter().map(|line| line["name"].as_str()).collect();
    assert_eq!(names, ["read", "alone", "together", "hand_over"].map(Some), "{json}");
    let is_whole = |line: &Value| line["p99_us"].is_f64() && line["limit"]["p50_us"].is_f64();
    assert!(measured.iter().all(is_whole), "{json}");
    bench.has_nothing_left().await;
}

pub async fn a_signal_ends_it_and_leaves_nothing<S: Contents>() {
    let bench = Bench::<S>::new();
    let mut command = bench.on_store(&["bench", "--yes", "--seconds", "2", "--keys", "3"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().expect("a program that can be run"));
    until("it holds a lock", || {
        let shown = complete(&mut bench.on_store(&["ls", "dlock:bench:"]));
        text(&shown.stdout).contains("dlock bench")
    });
    running.send(Signal::SIGINT);
    let said = "dlock: ended early; nothing is left in the store".to_owned();
    assert_eq!(running.end(), (Some(130), said));
    bench.has_nothing_left().await;
}

async fn a_store_without_a_known_limit_says_so() {
    let bench = Bench::<OnZooKeeper>::new();
    let done = complete(&mut bench.on_store(&SHORT));
    let shown = text(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert!(
        shown.contains("The limit of this store was not measured: compare with the read"),
        "{shown}"
    );
    let shown = complete(&mut bench.on_store(&["ls"]));
    assert_eq!(text(&shown.stdout).lines().count(), 1, "{shown:?}");
}

async fn it_is_refused_unless_somebody_agrees() {
    let bench = Bench::<OnSqlite>::new();
    let done = complete(&mut bench.on_store(&["bench"]));
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(64), "{said}");
    assert!(said.starts_with("dlock: this loads the server") && said.contains("--yes"), "{said}");
    for wrong in ["--seconds=0", "--seconds=soon", "--keys=0", "--waiters=1"] {
        let done = complete(&mut bench.on_store(&["bench", "--yes", wrong]));
        assert_eq!(done.status.code(), Some(64), "{wrong}");
    }
    assert!(!bench.path("locks.db").exists(), "it did not even connect");
}

async fn it_asks_on_a_terminal() {
    let bench = Bench::<OnSqlite>::new();
    let terminal = Terminal::open(&bench.path(""), 120, 20);
    let program = env!("CARGO_BIN_EXE_dlock");
    terminal.line(&format!("{program} -b {} bench", bench.store.url()));
    terminal.shows("for about 35s, and others notice. Measure it? [y/N]");
    terminal.line("n");
    terminal.shows("dlock: nothing was measured");
    terminal.is_given_back();
}
