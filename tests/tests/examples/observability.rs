//! The example `observability`: what its metrics say, beside what it measures itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use dlock_tests::servers::signal_child;
use rustix::process::Signal;

const INVENTORY: &str = "example_observability::shop::nightly_inventory";

/// The service. It is killed when the test is over.
struct Service {
    process: Child,
    printed: BufReader<ChildStdout>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Service {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(super::example("example-observability"));
        command.args(["--listen", "127.0.0.1:0"]).args(arguments).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the example");
        let printed = BufReader::new(process.stdout.take().expect("stdout is piped"));
        Self { process, printed }
    }

    /// Reads until a line that contains this.
    fn line_with(&mut self, part: &str) -> String {
        let mut all = String::new();
        loop {
            let before = all.len();
            let read = self.printed.read_line(&mut all).expect("text");
            assert!(read > 0, "it ended without `{part}`: {all}");
            if all[before..].contains(part) {
                return all[before..].trim().to_owned();
            }
        }
    }
}

/// What an exporter answers: each series with its value.
struct Metrics(Vec<(String, f64)>);

impl Metrics {
    fn scrape(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let lines =
            answer.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
        let series = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(series.collect())
    }

    /// The sum of the series of this name with this among their labels.
    fn sum(&self, name: &str, label: &str) -> f64 {
        let is_named = |series: &str| series.split('{').next() == Some(name);
        let found = self.0.iter().filter(|(series, _)| is_named(series) && series.contains(label));
        found.map(|(_, value)| value).sum()
    }
}

/// Scrapes until this holds.
fn scrape_until(address: &str, holds: impl Fn(&Metrics) -> bool) {
    let began = Instant::now();
    loop {
        let metrics = Metrics::scrape(address);
        if holds(&metrics) {
            return;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "{:?}", metrics.0);
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(super) async fn metrics() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let stacks = folder.path().join("blame.folded");
    let file = stacks.to_str().expect("a path");
    let mut service = Service::start(&["--seconds", "6", "--linger", "600", "--folded", file]);
    let address = service.line_with("metrics: http://");
    let address = address.trim_start_matches("metrics: http://").trim_end_matches("/metrics");

    // While it runs.
    scrape_until(address, |metrics| {
        metrics.sum("dlock_waiting", "product:<id>") >= 1.0
            && metrics.sum("dlock_held", r#"backend="shop""#) >= 1.0
    });

    // Once it is closed, every wait is counted in full.
    service.line_with("closed, and all locks are released");
    let metrics = Metrics::scrape(address);
    waits_are_charged(&metrics);
    holds_are_counted(&metrics);
    let stacks = std::fs::read_to_string(&stacks).expect("the folded stacks");
    assert!(stacks.starts_with(INVENTORY), "{stacks}");

    signal_child(&service.process, Signal::INT);
    assert!(service.process.wait().expect("it ends").success());
}

fn waits_are_charged(metrics: &Metrics) {
    let charged = metrics.sum("dlock_blame_seconds_sum", "");
    let measured = metrics.sum("shop_lock_wait_seconds_sum", "");
    assert!(measured > 5.0 && (charged / measured - 1.0).abs() < 0.05, "{charged}, {measured}");
    let to_inventory = metrics.sum("dlock_blame_seconds_sum", INVENTORY);
    assert!(to_inventory > charged / 2.0, "{to_inventory} of {charged}");
    let waited = metrics.sum("dlock_wait_seconds_sum", "");
    assert!((waited / measured - 1.0).abs() < 0.05, "{waited}, {measured}");
}

fn holds_are_counted(metrics: &Metrics) {
    let sum = |name, label| metrics.sum(name, label);
    let acquired = sum("dlock_acquires_total", r#"outcome="acquired""#);
    let measured = sum("shop_lock_wait_seconds_count", "");
    // Counts are whole numbers, far below where a float is not exact.
    let same = |one: f64, other: f64| (one - other).abs() < 0.5;
    assert!(acquired > 10.0 && same(acquired, measured), "{acquired}, {measured}");
    assert!(same(acquired, sum("dlock_wait_seconds_bucket", r#"le="+Inf""#)), "{:?}", metrics.0);
    assert!(same(acquired, sum("dlock_hold_seconds_count", "")), "{:?}", metrics.0);
    assert!(sum("dlock_renewals_total", "") >= 1.0, "{:?}", metrics.0);
    for gauge in ["dlock_held", "dlock_waiting", "dlock_oldest_wait_seconds"] {
        assert!(metrics.0.iter().any(|(series, _)| series.starts_with(gauge)), "{gauge}");
        assert!(same(sum(gauge, ""), 0.0), "{gauge}: {:?}", metrics.0);
    }
}
