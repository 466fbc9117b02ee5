//! Looking, ending holds, and wrong use.

use serde_json::Value;

use crate::dlock::{Bench, complete, dlock, text};
use crate::stores::{OnSqlite, Store};

pub async fn a_lock_that_is_held_is_shown<S: Store>() {
    let bench = Bench::<S>::new();
    let done = complete(&mut bench.on_store(&["who", "k"]));
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert_eq!(text(&done.stdout), "nobody holds `k`, and nobody waits for it");
    let running = bench.start(&[], "touch started; sleep 60");
    let shown = complete(&mut bench.on_store(&["ls"]));
    let shown = text(&shown.stdout);
    let mut lines = shown.lines();
    assert!(lines.next().is_some_and(|head| head.starts_with("KEY  MODE ")), "{shown}");
    assert!(
        lines.next().is_some_and(
            |lock| lock.starts_with("k    exclusive ") && lock.contains("dlock run sh")
        ),
        "{shown}"
    );
    assert_eq!(lines.next(), None, "{shown}");
    let json = complete(&mut bench.on_store(&["who", "k", "--json"]));
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["holders"][0]["client"]["process_id"], running.id(), "{json}");
    assert_eq!(json["holders"][0]["mode"], "exclusive", "{json}");
    let json = complete(&mut bench.on_store(&["ls", "another", "--json"]));
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).expect("JSON"), Value::Array(vec![]));
}

pub async fn a_lock_can_be_released_by_force<S: Store>() {
    let bench = Bench::<S>::new();
    let done = complete(&mut bench.on_store(&["release", "--force", "k"]));
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let mut running = bench.start(&["--ttl", "3s"], "touch started; sleep 60");
    let done = complete(&mut bench.on_store(&["release", "k"]));
    assert_eq!(done.status.code(), Some(64), "without `--force`: {done:?}");
    let done = complete(&mut bench.on_store(&["release", "--force", "k"]));
    assert!(done.status.success(), "{done:?}");
    assert!(bench.is_free());
    let (code, said) = running.end();
    assert_eq!(code, Some(70), "{said}");
}

pub async fn wrong_use_has_one_clear_line() {
    let cases: [(&[&str], i32, &str); 7] = [
        (&["ls"], 64, "where are the locks? Pass `--backend URL`"),
        (&["-b", "nowhere", "ls"], 78, "no backend `nowhere`"),
        (&["-b", "ftp://host/", "ls"], 69, "no backend has the URL scheme `ftp`"),
        (&["-b", "memory:", "run", "k", "--", "true"], 64, "`memory:` is in this process alone"),
        (
            &["-b", "sqlite:x", "run", "--ttl", "999ms", "k", "--", "true"],
            64,
            "`--ttl` is at least 1s",
        ),
        (&["-b", "redis://127.0.0.1:1/", "health"], 69, "127.0.0.1:1"),
        (&["--config", "/no/such/file", "ls"], 78, "cannot read `/no/such/file`"),
    ];
    for (arguments, code, part) in cases {
        let done = complete(dlock(arguments).current_dir("/"));
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.starts_with("dlock: ") && said.contains(part), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
    let done = complete(&mut dlock(&["-b", "sqlite:x", "run", "k"]));
    assert_eq!(done.status.code(), Some(64), "a command is missing: {done:?}");
    // The code says it, even if nobody can read the line.
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
    let code = dlock(&["ls"]).current_dir("/").stderr(full).status().expect("a program").code();
    assert_eq!(code, Some(64));
}

pub async fn a_password_is_never_shown() {
    for arguments in [
        &["-b", "redis://user:s3cret@127.0.0.1:1/", "ls"][..],
        &["-b", "postgres://user:s3cret@127.0.0.1:1/x", "run", "k", "--", "true"],
        &["--help"],
    ] {
        let done = complete(dlock(arguments).env("DLOCK_URL", "redis://user:s3cret@127.0.0.1:1/"));
        let shown = format!("{}{}", text(&done.stdout), text(&done.stderr));
        assert!(!shown.is_empty() && !shown.contains("s3cret"), "{shown}");
    }
}

pub async fn the_store_can_come_from_a_file_or_a_configuration() {
    let bench = Bench::<OnSqlite>::new();
    let _running = bench.start(&[], "touch started; sleep 60");
    let url = bench.store.url();
    let write = |name: &str, text: String| {
        std::fs::write(bench.path(name), text).expect("a file");
        bench.path(name).display().to_string()
    };
    let file = write("url", format!("{url}\n"));
    let config = write("locks.toml", format!("[backends]\njobs = \"{url}\"\n"));
    let ls = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = dlock(arguments);
        command.arg("ls").current_dir(bench.path(""));
        command.envs(variable);
        let done = complete(&mut command);
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        assert!(text(&done.stdout).contains("dlock run sh"), "{arguments:?}: {done:?}");
    };
    ls(&["--backend-file", &file], None);
    ls(&["--config", &config], None);
    ls(&["--config", &config, "-b", "jobs"], None);
    ls(&["-b", "jobs"], Some(("DLOCK_BACKEND_JOBS", &url)));
    ls(&[], Some(("DLOCK_BACKEND_JOBS", &url)));
    ls(&[], Some(("DLOCK_URL", &url)));
    // The file comes first.
    ls(&["--backend-file", &file], Some(("DLOCK_URL", "sqlite:another.db")));
    write(
        "dlock.toml",
        format!("default_backend = \"jobs\"\n[backends]\njobs = \"{url}\"\nothers = \"memory:\"\n"),
    );
    ls(&[], None);
}

pub async fn health_is_a_line_and_a_code() {
    let bench = Bench::<OnSqlite>::new();
    let done = complete(&mut bench.on_store(&["health"]));
    assert!(
        done.status.success() && text(&done.stdout).starts_with("ok: connected in "),
        "{done:?}"
    );
    let done = complete(&mut bench.on_store(&["health", "--json"]));
    let json: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert!(json["round_trip_ms"].is_f64(), "{json}");
}

pub async fn completions_and_the_manual_page_are_printed() {
    for (arguments, part) in [
        (&["completions", "bash"][..], "_dlock"),
        (&["completions", "zsh"], "#compdef dlock"),
        (&["man"], ".TH dlock"),
    ] {
        let done = complete(&mut dlock(arguments));
        assert!(done.status.success() && text(&done.stdout).contains(part), "{arguments:?}");
    }
}

/// The danger of each server, and how it is called without.
pub async fn a_danger_is_found_and_has_a_code() {
    use dlock_tests::servers::{MariaDbServer, PostgresServer, RedisServer};

    let diagnosis = |url: &str, code: i32, part: &str| {
        let done = complete(&mut dlock(&["-b", url, "doctor"]));
        let said = text(&done.stdout);
        assert_eq!(done.status.code(), Some(code), "{said}{}", text(&done.stderr));
        assert!(said.contains(part), "{said}");
        let done = complete(&mut dlock(&["-b", url, "doctor", "--json"]));
        let json: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!(json["healthy"], code == 0, "{json}");
    };
    let evicting = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    diagnosis(&evicting.url(), 1, "DANGER  `maxmemory-policy` is `allkeys-lru`");
    let redis = RedisServer::start();
    diagnosis(&redis.url(), 0, "note    `appendonly` is off");
    let hasty = PostgresServer::start_with(&[("fsync", "off")]);
    diagnosis(&hasty.url(), 1, "DANGER  `fsync` is off");
    let postgres = PostgresServer::start_with(&[("fsync", "on")]);
    diagnosis(&postgres.url(), 0, "a lock and its release ");
    let hasty = MariaDbServer::start_with(&[("innodb_flush_log_at_trx_commit", "2")]);
    diagnosis(&hasty.url(), 1, "DANGER  `innodb_flush_log_at_trx_commit` is 2");
    let mariadb = MariaDbServer::start_with(&[("innodb_flush_log_at_trx_commit", "1")]);
    diagnosis(&mariadb.url(), 0, "a lock and its release ");
    let sqlite = Bench::<OnSqlite>::new();
    diagnosis(&sqlite.store.url(), 0, "nothing endangers locks here");
    let done = complete(&mut dlock(&["-b", "redis://127.0.0.1:1/", "doctor"]));
    assert_eq!(done.status.code(), Some(69), "{done:?}");
    assert_eq!(text(&done.stderr).lines().count(), 1, "{done:?}");
}
