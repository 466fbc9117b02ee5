//! Processes that are killed or paused in each role: reader, permit holder, first in the queue, in the
//! middle of the queue.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use dlock_runtime::testing::Intercepted;
use dlock_runtime::{LockError, LockGuard, Mode, Registry};
#[cfg(feature = "etcd")]
use dlock_tests::servers::EtcdServer;
use dlock_tests::servers::{
    MariaDbServer, PostgresServer, RedisServer, ZOOKEEPER, ZooKeeperServer,
};
use dlock_tests::trials::Trials;
use dlock_tests::workers::Worker;
use futures_util::future::{BoxFuture, join_all};
use tokio::task::JoinHandle;

use super::steps::sqlite_file;

const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// The timeout for what must happen but may be late on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);

pub(super) fn add(trials: &mut Trials) {
    trials.add("sqlite_in_every_role", || async {
        let (_folder, url) = sqlite_file();
        in_every_role(&url).await;
    });
    trials.needs("redis-server", "redis_in_every_role", || async {
        in_every_role(&RedisServer::start().url()).await;
    });
    trials.needs("postgres", "postgres_in_every_role", || async {
        in_every_role(&PostgresServer::start().url()).await;
    });
    trials.needs("mariadbd", "mysql_in_every_role", || async {
        in_every_role(&MariaDbServer::start().url()).await;
    });
    trials.needs(ZOOKEEPER, "zookeeper_in_every_role", || async {
        in_every_role(&ZooKeeperServer::start().url()).await;
    });
    #[cfg(feature = "etcd")]
    trials.needs("etcd", "etcd_in_every_role", || async {
        in_every_role(&EtcdServer::start().url()).await;
    });
}

/// This process, and how long a dead or paused one may delay others on this store.
struct Here {
    url: String,
    registry: Registry,
    ttl_ms: u64,
    /// How long a dead or paused holder may block others.
    gone: Duration,
    /// How long a dead or paused waiter may block others.
    passed: Duration,
}

impl Here {
    async fn new(url: &str) -> Self {
        let store = dlock_runtime::connect(url).await.expect("the store");
        let capabilities = dlock_runtime::Backend::capabilities(&store);
        let ttl = capabilities.min_ttl.max(Duration::from_secs(1));
        let slack = Duration::from_secs(2);
        let gone = ttl * 2 + slack;
        let passed = if capabilities.queue { gone } else { slack };
        let registry = Registry::builder().backend("store", store).build().expect("a registry");
        let ttl_ms = u64::try_from(ttl.as_millis()).expect("short");
        Self { url: url.to_owned(), registry, ttl_ms, gone, passed }
    }

    /// Starts a worker process and waits until it is queued.
    async fn queued_worker(&self, key: &str) -> Worker {
        let worker = Worker::start(WORKER, &Worker::queue_up(&self.url, key, self.ttl_ms));
        says(worker, "waiting").await
    }

    /// Starts a task of this process and waits until it is queued behind all earlier waiters.
    async fn queued_here(&self, key: &str) -> JoinHandle<Result<LockGuard, LockError>> {
        let store = Intercepted::new(dlock_runtime::connect(&self.url).await.expect("the store"));
        let registry = Registry::builder().backend("store", store.clone()).build();
        let registry = registry.expect("a registry");
        let waiter = tokio::spawn(registry.lock(key).fair(true).wait(TIMEOUT).acquire());
        store.waits_in_queue().await;
        waiter
    }

    async fn hold(&self, key: &str) -> LockGuard {
        self.registry.lock(key).acquire().await.expect("the lock")
    }
}

/// Waits for the next line of a worker, which must start with `word`.
async fn says(mut worker: Worker, word: &'static str) -> Worker {
    let waiting = tokio::task::spawn_blocking(move || {
        let line = worker.says();
        assert!(line.starts_with(word), "the worker printed `{line}` instead of `{word}`");
        worker
    });
    waiting.await.expect("the expected line")
}

async fn release(guard: LockGuard) {
    guard.release().await.expect("held to the end");
}

async fn in_every_role(url: &str) {
    let here = Here::new(url).await;
    let roles: [BoxFuture<'_, ()>; 5] = [
        Box::pin(a_reader_is_killed(&here)),
        Box::pin(a_permit_holder_is_paused(&here)),
        Box::pin(the_first_in_the_queue_is_killed(&here)),
        Box::pin(one_in_the_middle_of_the_queue_is_killed(&here)),
        Box::pin(the_first_in_the_queue_is_paused(&here)),
    ];
    join_all(roles).await;
}

async fn a_reader_is_killed(here: &Here) {
    let shared = || here.registry.lock("read").mode(Mode::Shared).wait(TIMEOUT);
    let reader = shared().acquire().await.expect("the lock");
    let other = Worker::start(WORKER, &Worker::share(&here.url, "read", here.ttl_ms));
    let mut other = says(other, "held").await;
    other.kill();
    let killed = Instant::now();
    release(reader).await;
    release(here.registry.lock("read").wait(TIMEOUT).acquire().await.expect("the lock")).await;
    let took = killed.elapsed();
    assert!(took < here.gone, "a writer waited {took:?} for a reader that was killed");
}

async fn a_permit_holder_is_paused(here: &Here) {
    let two = NonZeroU32::MIN.saturating_add(1);
    let permit = || here.registry.lock("count").permits(two).wait(TIMEOUT);
    let first = permit().acquire().await.expect("a permit");
    let other = Worker::start(WORKER, &Worker::count_in(&here.url, "count", here.ttl_ms, 2));
    let other = says(other, "held").await;
    other.pause();
    let paused = Instant::now();
    let third = permit().acquire().await.expect("the expired permit");
    let took = paused.elapsed();
    assert!(took < here.gone, "a permit was free only {took:?} after its holder was paused");
    assert!(first.is_held());
    other.resume();
    let _other = says(other, "lost").await;
    release(first).await;
    release(third).await;
}

async fn the_first_in_the_queue_is_killed(here: &Here) {
    let held = here.hold("first").await;
    let mut first = here.queued_worker("first").await;
    let second = here.queued_here("first").await;
    first.kill();
    let killed = Instant::now();
    release(held).await;
    let second = second.await.expect("no panic").expect("the lock");
    let took = killed.elapsed();
    assert!(took < here.passed, "a killed waiter delayed the next one by {took:?}");
    release(second).await;
}

async fn one_in_the_middle_of_the_queue_is_killed(here: &Here) {
    let held = here.hold("middle").await;
    let first = here.queued_here("middle").await;
    let mut second = here.queued_worker("middle").await;
    let third = here.queued_here("middle").await;
    second.kill();
    let killed = Instant::now();
    release(held).await;
    let first = first.await.expect("no panic").expect("the lock");
    assert!(!third.is_finished(), "the third waiter was granted before the first");
    release(first).await;
    let third = third.await.expect("no panic").expect("the lock");
    let took = killed.elapsed();
    assert!(took < here.passed * 2, "a killed waiter delayed the next one by {took:?}");
    release(third).await;
}

/// After it is resumed, it still gets the lock.
async fn the_first_in_the_queue_is_paused(here: &Here) {
    let held = here.hold("still").await;
    let first = here.queued_worker("still").await;
    let second = here.queued_here("still").await;
    first.pause();
    let paused = Instant::now();
    release(held).await;
    let second = second.await.expect("no panic").expect("the lock");
    let took = paused.elapsed();
    assert!(took < here.passed, "a paused waiter delayed the next one by {took:?}");
    first.resume();
    release(second).await;
    let mut first = says(first, "held").await;
    first.kill();
    let left = here.registry.lock("still").wait(TIMEOUT).acquire().await.expect("the lock");
    let took = paused.elapsed();
    assert!(took < here.gone * 3, "{took:?}");
    release(left).await;
}
