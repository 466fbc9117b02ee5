//! Requests that the server executes late or in another order.

use std::time::Duration;

use dlock_runtime::backend::Redis;
use dlock_runtime::{LockError, Mode};
use dlock_tests::late::LateProxy;
use dlock_tests::servers::RedisServer;
use redis::AsyncCommands;

use super::{acquire, plain, registry, steps};

pub(super) async fn an_acquire_that_a_stopped_server_executes_late_grants_nothing() {
    for round in 0..5 {
        let mut server = RedisServer::start();
        let quick = Duration::from_millis(100);
        let backend = Redis::builder().response_timeout(quick).connect_timeout(quick);
        let registry = steps::registry(backend.connect(&server.url()).await.expect("it runs"));
        acquire(&registry, "warm").await.release().await.expect("held");

        server.pause();
        let lock = registry.lock("k").ttl(Duration::from_secs(30));
        let answer = lock.wait(Duration::from_millis(300)).acquire().await;
        assert!(matches!(answer, Err(LockError::Backend { .. })), "{answer:?}");
        server.resume();

        // Whatever the server still executes, nothing may be held once the acquire is undone. The old
        // connection's requests are executed before this one.
        registry.shutdown(Duration::from_secs(20)).await.expect("the acquire is undone");
        let mut connection = plain(&server).await;
        let held: bool = connection.exists("dlock:{k}").await.expect("EXISTS");
        assert!(!held, "a late acquire left a lock, round {round}");
    }
}

pub(super) async fn a_release_that_overtakes_its_acquire_wins() {
    let server = RedisServer::start();
    let backend = Redis::connect(&server.url()).await.expect("the server runs");
    steps::assert_early_release_wins(&backend).await;
}

pub(super) async fn the_first_copy_of_a_resent_acquire_grants_nothing_late() {
    let server = RedisServer::start();
    let mut between = LateProxy::start(server.port()).await;
    let backend = Redis::connect(&format!("redis://127.0.0.1:{}", between.port())).await;
    let registry = steps::registry(backend.expect("the server runs"));
    acquire(&registry, "warm").await.release().await.expect("held");

    between.keep_next("EVALSHA");
    let guard = acquire(&registry, "k").await;
    let first = between.kept().await;
    guard.release().await.expect("held to the end");
    first.deliver().await;
    assert_eq!(server.cli(&["EXISTS", "dlock:{k}"]).trim(), "0");
    acquire(&registry, "k").await.release().await.expect("free");
}

/// The second copy was answered "busy". The first copy is executed once the key is free.
pub(super) async fn the_first_copy_of_an_abandoned_acquire_grants_nothing_late() {
    let server = RedisServer::start();
    let holder = registry(&server).await;
    let mut between = LateProxy::start(server.port()).await;
    let backend = Redis::connect(&format!("redis://127.0.0.1:{}", between.port())).await;
    let backend = backend.expect("the server runs");
    for mode in [Mode::Exclusive, Mode::Shared] {
        let waiter = steps::registry(backend.clone());
        let lock = waiter.lock("k").mode(mode).wait(Duration::ZERO);
        lock.clone().acquire().await.expect("free").release().await.expect("held");

        let held = acquire(&holder, "k").await;
        between.keep_next("EVALSHA");
        let answer = lock.acquire().await;
        assert!(answer.as_ref().is_err_and(LockError::is_busy), "{answer:?}");
        let first = between.kept().await;
        held.release().await.expect("held to the end");
        waiter.shutdown(Duration::from_secs(20)).await.expect("the acquire is undone");
        first.deliver().await;
        let next = holder.lock("k").wait(Duration::ZERO).acquire().await;
        next.expect("nobody holds it").release().await.expect("held");
    }
}

/// The acquire could not be resent for lack of a connection and failed, but its first copy was sent.
pub(super) async fn the_only_copy_of_a_failed_acquire_grants_nothing_late() {
    let server = RedisServer::start();
    let holder = registry(&server).await;
    let mut between = LateProxy::start(server.port()).await;
    let backend = Redis::connect(&format!("redis://127.0.0.1:{}", between.port())).await;
    let waiter = steps::registry(backend.expect("the server runs"));
    acquire(&waiter, "k").await.release().await.expect("held");

    between.refuse_connections(true);
    between.keep_next("EVALSHA");
    let answer = waiter.lock("k").wait(Duration::ZERO).acquire().await;
    assert!(matches!(answer, Err(LockError::Backend { .. })), "{answer:?}");
    let first = between.kept().await;
    between.refuse_connections(false);
    waiter.shutdown(Duration::from_secs(20)).await.expect("the acquire is undone");
    first.deliver().await;
    let next = holder.lock("k").wait(Duration::ZERO).acquire().await;
    next.expect("nobody holds it").release().await.expect("held");
}
