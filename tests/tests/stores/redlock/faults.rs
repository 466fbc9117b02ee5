//! Nodes that die or hang, and networks that fail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dlock_runtime::{LockError, Registry, Wait};
use dlock_tests::proxy::Proxy;
use dlock_tests::servers::{RedisNodes, RedisServer};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{LONGEST, acquire, all_count, backend_at, registry, registry_over, scripts_run, steps};

/// Tasks that acquire and release one lock in a loop, and assert mutual exclusion and growing tokens.
struct Traffic {
    cycles: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    async fn start(nodes: &RedisNodes) -> Self {
        let (cycles, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let last = Arc::new(Mutex::new(0));
        let alone = Arc::new(AtomicBool::new(true));
        let mut tasks = vec![];
        for _ in 0..3 {
            let registry = registry(nodes).await;
            let (cycles, end) = (Arc::clone(&cycles), Arc::clone(&end));
            let (last, alone) = (Arc::clone(&last), Arc::clone(&alone));
            tasks.push(tokio::spawn(async move {
                while !end.load(Ordering::SeqCst) {
                    let guard = acquire(&registry, "k").await;
                    assert!(alone.swap(false, Ordering::SeqCst), "two holders");
                    {
                        let mut last = last.lock().expect("no panic");
                        let token = guard.fencing_token().get();
                        assert!(token > *last, "{token} follows {last}");
                        *last = token;
                    }
                    sleep(Duration::from_millis(5)).await;
                    assert!(guard.is_held(), "lost although a majority was up");
                    alone.store(true, Ordering::SeqCst);
                    guard.release().await.expect("held to the end");
                    cycles.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        Self { cycles, end, tasks }
    }

    /// Waits until this many more cycles are complete.
    async fn go_on(&self, cycles: u64) {
        let until = self.cycles.load(Ordering::SeqCst) + cycles;
        let began = Instant::now();
        while self.cycles.load(Ordering::SeqCst) < until {
            assert!(began.elapsed() < Duration::from_secs(30), "no progress");
            assert!(self.tasks.iter().all(|task| !task.is_finished()), "a task has failed");
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn finish(self) {
        self.end.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("no panic");
        }
    }
}

/// Acquires, renewals and releases run all the time, so every kind of request meets a fault.
pub(super) async fn two_nodes_killed_stopped_or_emptied_at_any_moment() {
    let mut nodes = RedisNodes::start();
    // Held and renewed from the first fault to the last.
    let holder = registry(&nodes).await;
    let held = acquire(&holder, "held").await;
    let traffic = Traffic::start(&nodes).await;
    traffic.go_on(20).await;
    for fault in 0..9 {
        let pair = [fault % 5, (fault + 2) % 5];
        for node in pair {
            let server = &mut nodes.servers[node];
            match fault % 3 {
                0 => server.kill(),
                1 => server.pause(),
                _ => {
                    server.kill();
                    server.restart();
                }
            }
        }
        traffic.go_on(15).await;
        for node in pair {
            let server = &mut nodes.servers[node];
            match fault % 3 {
                0 => server.restart(),
                1 => server.resume(),
                _ => {}
            }
        }
        traffic.go_on(5).await;
        // Never more than a minority is down or in quarantine.
        all_count(&nodes.servers).await;
    }
    traffic.finish().await;
    assert!(held.is_held(), "lost although a majority was up");
    held.release().await.expect("held to the end");
}

/// Asserts that an acquire with this wait fails soon after its deadline.
async fn nobody_enters(registry: &Registry, wait: Duration) {
    let key = format!("another{}", wait.as_millis());
    steps::assert_fails_at_deadline(registry, &key, wait).await;
}

/// Asserts that the hold is lost no later than the end of its validity.
async fn ends_in_time(guard: &dlock_runtime::LockGuard) {
    let (began, left) = (Instant::now(), guard.remaining());
    let lost = guard.lost().await;
    let took = began.elapsed();
    assert!(lost.is_lost(), "{lost:?}");
    assert!(took < left + Duration::from_millis(500), "ended {took:?} later, {left:?} were left");
}

pub(super) async fn nobody_enters_while_a_majority_is_dead() {
    let mut nodes = RedisNodes::start();
    let (one, other) = (registry(&nodes).await, registry(&nodes).await);
    let guard = acquire(&one, "k").await;
    let token = guard.fencing_token();
    for server in &mut nodes.servers[..3] {
        server.kill();
    }
    ends_in_time(&guard).await;
    nobody_enters(&other, Duration::from_millis(500)).await;
    nobody_enters(&other, Duration::ZERO).await;
    let waiter = tokio::spawn(other.lock("k").wait(Wait::Forever).acquire());
    assert!(guard.release().await.is_err_and(|error| LockError::is_lost(&error)));
    for server in &mut nodes.servers[..3] {
        server.restart();
    }
    // They restart empty, and count once every lease they may have forgotten has expired.
    let next = waiter.await.expect("no panic").expect("the lock");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
}

pub(super) async fn a_majority_stopped_ends_the_hold_in_time_and_leaves_nothing() {
    let mut nodes = RedisNodes::start();
    let (one, other) = (registry(&nodes).await, registry(&nodes).await);
    let guard = acquire(&one, "k").await;
    for server in &mut nodes.servers[1..4] {
        server.pause();
    }
    nobody_enters(&other, Duration::from_millis(500)).await;
    ends_in_time(&guard).await;
    assert!(guard.release().await.is_err_and(|error| LockError::is_lost(&error)));
    for server in &mut nodes.servers[1..4] {
        server.resume();
    }
    for registry in [&one, &other] {
        registry.shutdown(Duration::from_secs(20)).await.expect("all acquires are undone");
    }
    for server in &nodes.servers {
        for key in ["dlock:{k}", "dlock:{another500}"] {
            assert_eq!(server.cli(&["EXISTS", key]).trim(), "0", "{key} is still held");
        }
    }
}

pub(super) async fn nodes_that_were_stopped_execute_late_and_hold_nothing() {
    let mut nodes = RedisNodes::start();
    let registry = registry(&nodes).await;
    for round in 0..5 {
        for server in &mut nodes.servers[..2] {
            server.pause();
        }
        let key = format!("k{round}");
        acquire(&registry, &key).await.release().await.expect("held");
        for server in &mut nodes.servers[..2] {
            server.resume();
        }
        // Another lock on the same connections, which execute requests in order.
        acquire(&registry, "another").await.release().await.expect("held");
        for server in &nodes.servers {
            let began = Instant::now();
            while server.cli(&["EXISTS", &format!("dlock:{{{key}}}")]).trim() != "0" {
                assert!(began.elapsed() < LONGEST / 2, "a late acquire was left to its ttl");
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Connects to each node through its own proxy.
async fn behind_proxies(nodes: &RedisNodes) -> (Vec<Proxy>, Registry) {
    let mut proxies = vec![];
    for server in &nodes.servers {
        proxies.push(Proxy::start(server.port()).await);
    }
    let urls = proxies.iter().map(|proxy| format!("redis://127.0.0.1:{}/", proxy.port()));
    let registry = registry_over(backend_at(urls.collect()).await);
    (proxies, registry)
}

pub(super) async fn two_networks_cut_and_healed() {
    let nodes = RedisNodes::start();
    let (mut proxies, one) = behind_proxies(&nodes).await;
    let other = registry(&nodes).await;
    let guard = acquire(&one, "k").await;
    let waiter = tokio::spawn(other.lock("k").wait(Wait::Forever).acquire());
    for turn in 0..3 {
        let pair = [turn, turn + 2];
        for at in pair {
            proxies[at].cut().await;
        }
        sleep(LONGEST / 2).await;
        acquire(&one, "another").await.release().await.expect("held");
        for at in pair {
            proxies[at].heal().await;
        }
    }
    assert!(guard.is_held() && !waiter.is_finished());
    let token = guard.fencing_token();
    guard.release().await.expect("held to the end");
    let next = waiter.await.expect("no panic").expect("the lock");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
}

pub(super) async fn a_majority_of_half_open_networks() {
    let nodes = RedisNodes::start();
    let (proxies, one) = behind_proxies(&nodes).await;
    let other = registry(&nodes).await;
    let guard = acquire(&one, "k").await;
    let token = guard.fencing_token();
    let waiter = tokio::spawn(other.lock("k").wait(Wait::Forever).acquire());
    for proxy in &proxies[..3] {
        proxy.stall();
    }
    nobody_enters(&one, Duration::from_millis(300)).await;
    // The waiter's network works. It is granted once the lease has expired, and not before the holder knows.
    let ended = guard.lost().await;
    assert!(ended.is_lost(), "{ended:?}");
    let next = waiter.await.expect("no panic").expect("the lock");
    assert!(!guard.is_held() && next.fencing_token() > token);
    // The delayed requests, renewals among them, arrive now and must change nothing.
    for proxy in &proxies[..3] {
        proxy.resume();
    }
    assert!(guard.release().await.is_err_and(|error| LockError::is_lost(&error)));
    next.release().await.expect("held to the end");
    acquire(&one, "k").await.release().await.expect("held to the end");
}

/// Nothing reports that the peer is gone. Its connection is dropped once it has been silent for too long,
/// although the other nodes answered every call.
pub(super) async fn a_half_open_connection_is_replaced() {
    let nodes = RedisNodes::start();
    let (mut proxies, registry) = behind_proxies(&nodes).await;
    acquire(&registry, "k").await.release().await.expect("held");
    let connected = |server: &RedisServer| {
        let told = server.cli(&["INFO", "stats"]);
        let line = told.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).expect("a number")
    };
    let before = connected(&nodes.servers[0]);
    proxies[0].stall();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        acquire(&registry, "k").await.release().await.expect("held");
        sleep(Duration::from_millis(50)).await;
    }
    proxies[0].heal().await;
    let scripts = scripts_run(&nodes.servers[0]);
    let began = Instant::now();
    while scripts_run(&nodes.servers[0]) < scripts + 10 {
        assert!(began.elapsed() < Duration::from_secs(20), "no requests reach the node any more");
        acquire(&registry, "k").await.release().await.expect("held");
    }
    // Each `cli` call opens a connection of its own.
    assert!(connected(&nodes.servers[0]) > before + 3, "the connection was kept");
}
