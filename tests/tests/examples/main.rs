//! Runs the examples as their users do.

mod observability;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

#[cfg(feature = "etcd")]
use dlock_tests::servers::{EtcdCluster, EtcdServer};
use dlock_tests::servers::{
    MariaDbServer, PostgresServer, RedisCluster, RedisNodes, RedisSentinels, RedisServer,
    ZOOKEEPER, ZooKeeperEnsemble, ZooKeeperServer,
};
use dlock_tests::trials::Trials;
use serde_json::Value;

/// Every example except the flash sale.
const PACKAGES: [&str; 6] = [
    "example-bank-transfer",
    "example-configuration",
    "example-fencing",
    "example-last-item",
    "example-observability",
    "example-scheduled-job",
];

/// The flash sale's optional backends.
#[cfg(not(feature = "etcd"))]
const FEATURES: &str = "examples/postgres,examples/mysql,examples/zookeeper";
#[cfg(feature = "etcd")]
const FEATURES: &str = "examples/postgres,examples/mysql,examples/zookeeper,examples/etcd";

fn main() -> std::process::ExitCode {
    let mut trials = Trials::after(|| {
        LazyLock::force(&PROGRAMS);
    });
    trials.side_by_side(4);
    trials.add("sqlite_sells_exactly_the_stock", sqlite);
    trials.add("memory_sells_exactly_the_stock", memory);
    trials.needs("redis-server", "redis_sells_exactly_the_stock", redis);
    trials.needs("redis-server", "redis_cluster_sells_exactly_the_stock", || async {
        sells_exactly_the_stock(&["--backend", &RedisCluster::start().url()]);
    });
    trials.needs("redis-server", "redis_sentinel_sells_exactly_the_stock", || async {
        sells_exactly_the_stock(&["--backend", &RedisSentinels::start().url()]);
    });
    trials.needs("redis-server", "redlock_sells_exactly_the_stock", || async {
        sells_exactly_the_stock(&["--backend", &RedisNodes::start().url()]);
    });
    trials.needs(
        "redis-server",
        "redlock_keeps_selling_while_a_node_is_killed",
        redlock_node_killed,
    );
    trials.needs(
        "redis-server",
        "redis_cluster_keeps_selling_during_a_failover",
        cluster_fails_over,
    );
    trials.needs(
        "redis-server",
        "redis_sentinel_keeps_selling_during_a_failover",
        sentinel_fails_over,
    );
    trials.needs("postgres", "postgres_sells_exactly_the_stock", || async {
        sells_exactly_the_stock(&["--backend", &PostgresServer::start().url()]);
    });
    trials.needs("mariadbd", "mysql_sells_exactly_the_stock", || async {
        sells_exactly_the_stock(&["--backend", &MariaDbServer::start().url()]);
    });
    trials.needs(ZOOKEEPER, "zookeeper_sells_exactly_the_stock", || async {
        let backend = ZooKeeperServer::start();
        sells_exactly_the_stock_within(7_000, &["--backend", &backend.url()]);
    });
    trials.needs(ZOOKEEPER, "zookeeper_keeps_selling_while_the_leader_is_killed", leader_killed);
    #[cfg(feature = "etcd")]
    trials.needs("etcd", "etcd_sells_exactly_the_stock", || async {
        sells_exactly_the_stock_within(5_000, &["--backend", &EtcdServer::start().url()]);
    });
    #[cfg(feature = "etcd")]
    trials.needs("etcd", "etcd_keeps_selling_while_the_leader_is_killed", etcd_leader_killed);
    trials.needs("postgres", "a_row_lock_sells_exactly_the_stock", last_item);
    trials.add("a_fenced_store_refuses_the_stale_write", fencing);
    trials.add("a_schedule_runs_each_tick_once", schedule);
    trials.add("transfers_keep_the_total", transfers);
    trials.add("a_service_starts_from_its_configuration", configuration);
    trials.add("the_metrics_of_a_service_show_who_makes_the_others_wait", observability::metrics);
    trials.add("bad_input_is_one_clear_line", bad_input);
    trials.run()
}

async fn sqlite() {
    sells_exactly_the_stock(&[]);
}

async fn memory() {
    sells_exactly_the_stock(&["--backend", "memory:"]);
}

async fn redis() {
    let server = RedisServer::start();
    sells_exactly_the_stock(&["--backend", &server.url()]);
}

/// The executables of the examples, by name.
static PROGRAMS: LazyLock<HashMap<String, PathBuf>> = LazyLock::new(build);

/// Builds the examples. Cargo cannot depend on another package's executables.
fn build() -> HashMap<String, PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    command.args(["build", "--locked", "--message-format=json-render-diagnostics"]);
    command.args(["--package=examples", "--example=flash_sale", "--features", FEATURES, "--bins"]);
    command.args(PACKAGES.map(|package| format!("--package={package}")));
    let output = command.output().expect("cargo");
    assert!(output.status.success(), "cargo build: {}", output.status);
    let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let messages = lines.map(|line| serde_json::from_slice(line).expect("one message a line"));
    messages
        .filter_map(|message: Value| {
            let program = message["executable"].as_str()?;
            Some((message["target"]["name"].as_str()?.to_owned(), program.into()))
        })
        .collect()
}

fn example(name: &str) -> &'static PathBuf {
    PROGRAMS.get(name).unwrap_or_else(|| panic!("no {name} among {PROGRAMS:?}"))
}

async fn fencing() {
    let output = Command::new(example("example-fencing")).output().expect("the example");
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let (plain, fenced) = printed.split_once("with a fencing token").expect("two parts");
    assert!(plain.contains("learned of the lost lease too late"), "{printed}");
    assert!(fenced.contains("was rejected: fencing token"), "{printed}");
}

async fn schedule() {
    let output = Command::new(example("example-scheduled-job")).output().expect("the example");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(printed.contains("20 ticks, 0 not run exactly once"), "{printed}");
}

async fn configuration() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let [stock, mounted, file] =
        ["stock.db", "mounted", "shop.toml"].map(|name| folder.path().join(name));
    let run = |environment: &[(&str, &str)], arguments: &[&str]| {
        let mut command = Command::new(example("example-configuration"));
        let output = command.envs(environment.iter().copied()).args(arguments).output();
        let output = output.expect("the example");
        let [out, err] =
            [output.stdout, output.stderr].map(|printed| String::from_utf8(printed).unwrap());
        (output.status.success(), out, err)
    };

    let (_, printed, _) = run(&[], &[]);
    assert!(printed.contains("checked: ") && printed.contains("sold product 7"), "{printed}");

    // Environment variables override the file, with a URL or with the source of one.
    let url = format!("sqlite:{}", stock.display());
    let (_, printed, err) = run(&[("DLOCK_BACKEND_STOCK", &url)], &[]);
    assert!(printed.contains("sold product 7") && stock.exists(), "{printed}{err}");
    std::fs::remove_file(&stock).expect("it is there");
    let text = "greeting = 'hello'\n[locks.backends]\na = { env = 'STOCK_URL' }\n";
    std::fs::write(&file, text).expect("written");
    let arguments = ["--config", file.to_str().expect("a path")];
    let (_, printed, err) = run(&[("STOCK_URL", &url)], &arguments);
    assert!(printed.contains("sold product 7") && stock.exists(), "{printed}{err}");
    std::fs::write(&mounted, "redis://:secret@127.0.0.1:1/").expect("written");
    let text =
        text.replace("{ env = 'STOCK_URL' }", &format!("{{ file = '{}' }}", mounted.display()));
    std::fs::write(&file, text).expect("written");

    for (environment, arguments, expected) in [
        (&[][..], &arguments[..], "backend `a`: "),
        (&[("DLOCK_BACKEND_STOCK", "redis://:secret@127.0.0.1:1/")], &[], "backend `stock`: "),
        (&[("DLOCK_DEFAULT_TTL", "10")], &[], "`DLOCK_DEFAULT_TTL` is not a duration"),
        (&[("DLOCK_DEFAULT_BACKEND", "shop")], &[], "`shop` is not registered (registered: stock)"),
        (&[], &["--config", "/nowhere/shop.toml"], "/nowhere/shop.toml: No such file"),
    ] {
        let (succeeded, printed, err) = run(environment, arguments);
        assert!(!succeeded && err.contains(expected), "{expected}: {printed}{err}");
        assert_eq!(err.trim().lines().count(), 1, "{err}");
        assert!(!err.contains("secret") && !printed.contains("secret"), "{printed}{err}");
    }
}

async fn transfers() {
    let output = Command::new(example("example-bank-transfer")).output().expect("the example");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        printed.contains("with both accounts locked  total 50000 before, 50000 after"),
        "{printed}"
    );
    assert!(
        !printed.contains("without a lock             total 50000 before, 50000 after"),
        "{printed}"
    );
}

async fn last_item() {
    let server = PostgresServer::start();
    let mut command = Command::new(example("example-last-item"));
    let output = command.args(["--database", &server.url()]).output().expect("the example");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(printed.contains("locked in the transaction  sold 10 of 10"), "{printed}");
    assert!(!printed.contains("without a lock             sold 10 of 10"), "{printed}");
}

fn flash_sale(arguments: &[&str]) -> Output {
    let program = example("flash_sale");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let svg = folder.path().join("timeline.svg");
    let mut command = Command::new(program);
    command.arg("--json").args(arguments);
    if !arguments.contains(&"--svg") {
        command.arg("--svg").arg(&svg);
    }
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    if output.status.success() {
        let picture = std::fs::read_to_string(&svg).expect("the picture");
        assert!(picture.contains("<svg") && picture.contains("server 3"), "{picture}");
    }
    output
}

fn sells_exactly_the_stock(arguments: &[&str]) {
    sells_exactly_the_stock_within(3_000, arguments);
}

/// After a crash, the other servers must continue within this many milliseconds.
fn sells_exactly_the_stock_within(longest_wait: u64, arguments: &[&str]) {
    let output = flash_sale(arguments);
    let (out, printed) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}");
    let line: Value = serde_json::from_str(out.trim()).expect("one line of JSON");
    assert_eq!(line["stock"], 50, "{line}");
    assert!(line["without_lock"]["oversold"].as_u64() > Some(0), "{line}");
    for run in ["with_lock", "with_crash"] {
        assert_eq!((&line[run]["sold"], &line[run]["oversold"]), (&50.into(), &0.into()), "{line}");
    }
    assert_eq!(line["with_crash"]["refused"], 1, "{line}");
    // The ttl of a purchase plus a second.
    assert!(line["with_crash"]["longest_wait_ms"].as_u64() <= Some(longest_wait), "{line}");
}

/// How many purchases this server has seen, by its own statistics: each runs one script to acquire
/// and one to release.
fn purchases(server: &RedisServer) -> u64 {
    let printed = server.cli(&["INFO", "commandstats"]);
    let line = printed.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let calls = line.and_then(|line| line.split(',').next()?.parse::<u64>().ok());
    calls.unwrap_or(0) / 2
}

/// Waits until one of these servers is in the middle of the sale.
fn wait_for_mid_sale(servers: &[RedisServer]) -> usize {
    let began = Instant::now();
    loop {
        if let Some(found) = servers.iter().position(|server| purchases(server) >= 10) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "the sale has not started");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs the sale and, in the middle of it, `disturb`.
fn sells_exactly_the_stock_while(backend: &str, disturb: impl FnOnce()) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let svg = folder.path().join("timeline.svg");
    let mut command = Command::new(example("flash_sale"));
    command.args(["--json", "--backend", backend, "--svg"]).arg(svg);
    let sale = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the example");
    disturb();
    let output = sale.wait_with_output().expect("it ends");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    let line: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    for run in ["with_lock", "with_crash"] {
        assert_eq!((&line[run]["sold"], &line[run]["oversold"]), (&50.into(), &0.into()), "{line}");
    }
    // The report says how often the token rejected a write, because that alone may have saved the stock.
    assert!(line["with_lock"]["refused"].is_u64(), "{line}");
}

async fn redlock_node_killed() {
    let mut nodes = RedisNodes::start();
    sells_exactly_the_stock_while(&nodes.url(), || {
        wait_for_mid_sale(&nodes.servers);
        nodes.servers[2].kill();
    });
}

async fn cluster_fails_over() {
    let mut cluster = RedisCluster::start();
    sells_exactly_the_stock_while(&cluster.url(), || {
        let master = wait_for_mid_sale(&cluster.nodes);
        cluster.fail_over(master);
    });
}

async fn sentinel_fails_over() {
    let mut all = RedisSentinels::start();
    sells_exactly_the_stock_while(&all.url(), || {
        wait_for_mid_sale(&all.servers[..1]);
        all.fail_over();
    });
}

#[cfg(feature = "etcd")]
async fn etcd_leader_killed() {
    let mut cluster = EtcdCluster::start();
    sells_exactly_the_stock_while(&cluster.url(), || {
        let began = Instant::now();
        let sells = |cluster: &EtcdCluster| {
            let keys = cluster.servers[0].ctl(&["get", "dlock/item", "--prefix", "--keys-only"]);
            keys.contains("dlock/item")
        };
        while !sells(&cluster) {
            assert!(began.elapsed() < Duration::from_mins(1), "the sale has not started");
            std::thread::sleep(Duration::from_millis(2));
        }
        let leader = cluster.leader();
        cluster.servers[leader].kill();
    });
}

async fn leader_killed() {
    let mut ensemble = ZooKeeperEnsemble::start();
    sells_exactly_the_stock_while(&ensemble.url(), || {
        let began = Instant::now();
        let sells = |ensemble: &ZooKeeperEnsemble| {
            let leader = &ensemble.servers[ensemble.leader()];
            leader.ephemerals().iter().any(|path| path.starts_with("/dlock/item"))
        };
        while !sells(&ensemble) {
            assert!(began.elapsed() < Duration::from_mins(1), "the sale has not started");
            std::thread::sleep(Duration::from_millis(2));
        }
        let leader = ensemble.leader();
        ensemble.servers[leader].kill();
    });
}

async fn bad_input() {
    for (arguments, part) in [
        (&["--backend", "redis://:secret@127.0.0.1:1/"][..], "127.0.0.1:1 could not be reached"),
        (&["--backend", "carrier-pigeon:"], "this build has: memory"),
        (&["-P", "0"], "at least 1"),
        (&["-C", "10"], "too few"),
        (&["--svg", "/proc/nowhere/timeline.svg"], "/proc/nowhere"),
    ] {
        let output = flash_sale(arguments);
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert_eq!(printed.trim().lines().count(), 1, "{printed}");
        assert!(printed.contains(part) && !printed.contains("secret"), "{printed}");
        assert!(output.stdout.is_empty());
    }
}
