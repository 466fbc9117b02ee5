//! Which connections serve which request, and for how long a statement may occupy one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dlock_runtime::backend::{Attempt, Backend, Claim, Release};
use dlock_runtime::{Mode, Wait};
use dlock_tests::proxy::Proxy;
use tokio::time::{sleep, timeout};

use super::both::{Database, Options};
use crate::steps::{acquire, registry};

const TTL: Duration = Duration::from_secs(2);

/// Waits until `fact` is true, which only a bug can prevent.
async fn until<F: Future<Output = bool>>(what: &str, fact: impl Fn() -> F) {
    let began = Instant::now();
    while !fact().await {
        assert!(began.elapsed() < Duration::from_secs(4), "not within 4 s: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn claim(key: &str) -> Claim {
    Claim::new(key.into(), Duration::from_secs(30))
}

async fn connect<D: Database>(url: String, connections: u32, limit: Duration) -> D::Backend {
    let options = Options { connections, limit, ..Options::new(url) };
    D::connect(options).await.expect("the server runs")
}

/// Creates the rows of these keys.
async fn make_rows(backend: &impl Backend, keys: &[&str]) {
    for key in keys {
        let claim = claim(key);
        backend.try_acquire(&claim).await.expect("an answer");
        backend.release(&claim, Release::default()).await.expect("an answer");
    }
}

pub async fn a_body_that_keeps_the_pools_only_connection_keeps_its_lock<D: Database>() {
    let server = D::start();
    let (backend, pool) = D::over_a_pool_of(1, &server.url_by(server.port())).await;
    let registry = registry(backend);
    let guard = registry.lock("k").ttl(TTL).acquire().await.expect("the lock");
    let connection = pool.acquire().await.expect("it is free");
    let lost = timeout(TTL * 2, guard.lost()).await;
    assert!(lost.is_err(), "renewals starved: {lost:?}");
    let released = timeout(TTL, guard.release()).await.expect("releases starved");
    released.expect("held to the end");
    drop(connection);
}

pub async fn renewals_do_not_queue_behind_acquires<D: Database>() {
    let server = D::start();
    let backend = connect::<D>(server.url_by(server.port()), 1, Duration::from_secs(20)).await;
    make_rows(&backend, &["slow"]).await;
    let registry = registry(backend);
    let guard = registry.lock("mine").ttl(TTL).acquire().await.expect("the lock");
    let row = server.lock_row("slow").await;
    let slow = tokio::spawn(registry.lock("slow").wait(Wait::Forever).acquire());
    until("the acquire waits for its row", async || server.waiting().await > 0).await;
    let lost = timeout(TTL * 2, guard.lost()).await;
    assert!(lost.is_err(), "a renewal waited behind an acquire: {lost:?}");
    let released = timeout(TTL, guard.release()).await;
    released.expect("a release waited behind an acquire").expect("held to the end");
    drop(row);
    slow.await.expect("no panic").expect("the row is free").release().await.expect("held");
}

pub async fn an_abandoned_statement_ends_on_the_server<D: Database>() {
    let server = D::start();
    let url = server.url_by(server.port());
    let limit = Duration::from_millis(2_500);
    let backend = connect::<D>(url, 8, limit).await;
    make_rows(&backend, &["k"]).await;
    let row = server.lock_row("k").await;
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let backend = backend.clone();
            tokio::spawn(async move { backend.try_acquire(&claim("k")).await.map(drop) })
        })
        .collect();
    until("several wait for the row", async || server.waiting().await >= 4).await;
    // The callers give up before the server answers.
    for one in asking {
        one.abort();
    }
    until("no abandoned statement waits any more", async || server.waiting().await == 0).await;
    drop(row);
}

pub async fn no_setting_is_left_on_a_pools_connections<D: Database>() {
    let server = D::start();
    let (backend, pool) = D::over_a_pool_of(1, &server.url_by(server.port())).await;
    let before = D::settings(&pool).await;
    let registry = registry(backend);
    acquire(&registry, "k").await.release().await.expect("held");
    let shared = registry.lock("k").mode(Mode::Shared).acquire().await.expect("free");
    let busy = registry.lock("k").wait(Duration::ZERO).acquire().await;
    assert!(busy.is_err_and(|error| error.is_busy()));
    shared.release().await.expect("held");
    assert_eq!(D::settings(&pool).await, before);
}

/// Between changing the rows of a set and committing, the server needs no message from the client.
pub async fn a_set_commits_without_another_message_from_its_process<D: Database>() {
    let server = D::start();
    let proxy = Proxy::start(server.port()).await;
    let limit = Duration::from_secs(10);
    let other = connect::<D>(server.url_by(server.port()), 10, limit).await;
    make_rows(&other, &["a", "b", "c"]).await;
    let frozen = connect::<D>(server.url_by(proxy.port()), 10, limit).await;
    let row = server.lock_row("b").await;
    let claims = ["a", "b", "c"].map(claim);
    let asked = claims.clone();
    let asking = tokio::spawn(async move { frozen.try_acquire_set(&asked).await });
    until("the set waits for one of its rows", async || server.waiting().await > 0).await;
    // From now on its process receives nothing, as if it were paused.
    proxy.stall_answers();
    drop(row);
    let held = async || {
        let holder = other.inspect(&"a".into()).await.expect("an answer");
        holder.is_some_and(|holder| holder.owner == Some(claims[0].owner))
    };
    until("the set is committed", held).await;
    let answer = timeout(Duration::from_secs(2), other.try_acquire(&claim("c"))).await;
    let answer = answer.expect("its row is not locked").expect("an answer");
    assert!(matches!(answer, Attempt::Busy { .. }), "{answer:?}");
    asking.abort();
}

/// Overlapping sets in different orders: of a few keys, and of more than fit into one statement.
pub async fn sets_of_any_size_exclude_each_other<D: Database>() {
    let server = D::start();
    let url = server.url_by(server.port());
    for size in [3, 70] {
        let inside = Arc::new(AtomicU32::new(0));
        let mut tasks = vec![];
        for number in 0..3 {
            let backend = connect::<D>(url.clone(), 4, Duration::from_secs(10)).await;
            let registry = registry(backend);
            let mut keys: Vec<_> =
                (number..number + size).map(|key| format!("{size}:{key}")).collect();
            keys.reverse();
            let inside = Arc::clone(&inside);
            tasks.push(tokio::spawn(async move {
                for _ in 0..4 {
                    let set = registry.lock_all(keys.clone()).wait(Wait::Forever).acquire().await;
                    let set = set.expect("the locks");
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    set.release().await.expect("held to the end");
                }
            }));
        }
        for task in tasks {
            task.await.expect("no error");
        }
    }
}
