//! dlock on Redis beside the same two commands sent raw over the same client.
//!
//! On an idle virtual machine a round trip costs what it takes to wake the sleeping processor, several
//! times what it costs on a busy one: so both sides are measured in turn within one run, and the ratio
//! is what counts. It is printed before criterion's own figures.

use std::time::{Duration, Instant};

use criterion::Criterion;
use dlock_benches::{commands_sent, raw_cycle};
use dlock_runtime::backend::Redis;
use dlock_runtime::{OwnerId, Registry, Wait};
use dlock_tests::servers::{RedisServer, installed};
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;

/// Both ends of the comparison over one server.
struct Bench {
    registry: Registry,
    connection: MultiplexedConnection,
    _server: RedisServer,
}

impl Bench {
    async fn start() -> Self {
        let server = RedisServer::start();
        let backend = Redis::connect(&server.url()).await.expect("the server runs");
        let registry = Registry::builder().backend("redis", backend).build().expect("a registry");
        let client = redis::Client::open(server.url()).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await.expect("it runs");
        Self { registry, connection, _server: server }
    }

    /// So many tasks with a key each, raw.
    async fn raw(&self, tasks: usize, cycles: usize) -> Duration {
        let began = Instant::now();
        let all = (0..tasks).map(|task| {
            let mut connection = self.connection.clone();
            tokio::spawn(async move {
                let key = format!("raw{task}");
                for _ in 0..cycles {
                    let owner = OwnerId::random().to_string();
                    raw_cycle(&mut connection, &key, &owner).await.expect("the server runs");
                }
            })
        });
        join_all(all).await.into_iter().for_each(|task| task.expect("no panic"));
        began.elapsed()
    }

    /// So many tasks, each with a key of its own or all with one, through dlock.
    async fn locked(&self, tasks: usize, cycles: usize, one_key: bool) -> Duration {
        let began = Instant::now();
        let all = (0..tasks).map(|task| {
            let registry = self.registry.clone();
            tokio::spawn(async move {
                let key = if one_key { "one".to_owned() } else { format!("own{task}") };
                for _ in 0..cycles {
                    let lock = registry.lock(&key).wait(Wait::Forever);
                    lock.run(std::future::ready(())).await.expect("the lock");
                }
            })
        });
        join_all(all).await.into_iter().for_each(|task| task.expect("no panic"));
        began.elapsed()
    }
}

/// The median of the pairwise ratios raw time / dlock time: 1 is as fast as raw.
fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

async fn print_ratios(bench: &Bench) {
    const ROUNDS: usize = 11;
    for tasks in [1, 64] {
        let cycles = 4_000 / tasks;
        let mut ratios = Vec::new();
        let mut rates = (0.0, 0.0);
        for _ in 0..ROUNDS {
            let raw = bench.raw(tasks, cycles).await.as_secs_f64();
            let locked = bench.locked(tasks, cycles, false).await.as_secs_f64();
            ratios.push(raw / locked);
            let cycles = f64::from(u32::try_from(tasks * cycles).unwrap_or(u32::MAX));
            rates = (cycles / raw, cycles / locked);
        }
        let ratio = median(ratios);
        println!(
            "{tasks:>3} tasks, a key each: raw {:.0} cycles/s, dlock {:.0} cycles/s (last round), dlock/raw {ratio:.3} (median of {ROUNDS})",
            rates.0, rates.1
        );
    }
    let mut ratios = Vec::new();
    let mut connection = bench.connection.clone();
    let (mut sent, mut cycles, mut rate) = (0, 0, 0.0);
    for _ in 0..ROUNDS {
        let raw = bench.raw(1, 2_560).await.as_secs_f64();
        let before = commands_sent(&mut connection).await.expect("the server runs");
        let locked = bench.locked(256, 10, true).await.as_secs_f64();
        sent += commands_sent(&mut connection).await.expect("the server runs") - before;
        cycles += 2_560;
        rate = 2_560.0 / locked;
        ratios.push(raw / locked);
    }
    println!(
        "256 tasks on one key: dlock {rate:.0} cycles/s (last round), {:.3} commands a cycle on the wire, dlock/raw sequential {:.3} (median of {ROUNDS})",
        f64::from(u32::try_from(sent).unwrap_or(u32::MAX)) / f64::from(cycles),
        median(ratios)
    );
}

fn main() {
    if !installed("redis-server") {
        println!("left out: redis-server is not on the PATH (tests/run installs it)");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let bench = runtime.block_on(Bench::start());
    runtime.block_on(async {
        bench.raw(64, 50).await;
        bench.locked(64, 50, false).await;
        print_ratios(&bench).await;
    });
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("redis cycle, one task");
    group.bench_function("raw", |timer| {
        timer.to_async(&runtime).iter(|| {
            let mut connection = bench.connection.clone();
            async move { raw_cycle(&mut connection, "raw", "0123456789abcdef0123456789abcdef").await }
        });
    });
    group.bench_function("dlock", |timer| {
        timer.to_async(&runtime).iter(|| bench.registry.lock("own").run(std::future::ready(())));
    });
    group.finish();
    criterion.final_summary();
}
