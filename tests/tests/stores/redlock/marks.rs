//! Nodes that may have forgotten locks.

use std::time::{Duration, Instant};

use dlock_runtime::backend::{Attempt, Backend, Claim, Redlock};
use dlock_tests::servers::RedisNodes;
use tokio::time::sleep;

use super::{LONGEST, acquire, all_count, backend, counts, registry};

/// The well-known danger: a node of the majority forgets the lock and grants it again.
pub(super) async fn an_emptied_node_does_not_make_a_second_majority() {
    let mut nodes = RedisNodes::start();
    let (one, other) = (backend(&nodes).await, backend(&nodes).await);
    // The lock is on three nodes only.
    for server in &mut nodes.servers[3..] {
        server.pause();
    }
    let claim = Claim::new("k".into(), LONGEST);
    let began = Instant::now();
    let granted = one.try_acquire(&claim).await.expect("a majority answers");
    assert!(matches!(granted, Attempt::Granted { .. }), "{granted:?}");
    // One of them restarts empty, and the two nodes that never had the lock come back too.
    nodes.servers[2].kill();
    nodes.servers[2].restart();
    for server in &mut nodes.servers[3..] {
        server.resume();
    }
    let mut tries = 0;
    while began.elapsed() < LONGEST {
        let rival = Claim::new("k".into(), LONGEST);
        let answer = other.try_acquire(&rival).await;
        if began.elapsed() >= LONGEST {
            break;
        }
        tries += 1;
        assert!(!matches!(answer, Ok(Attempt::Granted { .. })), "a second holder: {answer:?}");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(tries > 3, "{tries}");
}

pub(super) async fn a_restarted_node_counts_after_its_quarantine() {
    let mut nodes = RedisNodes::start();
    let registry = registry(&nodes).await;
    acquire(&registry, "k").await.release().await.expect("held");
    // Three of five restart: there is no majority for a while.
    for server in &mut nodes.servers[..3] {
        server.kill();
        server.restart();
    }
    let answer = registry.lock("k").wait(Duration::from_millis(300)).acquire().await;
    let error = answer.expect_err("three may have forgotten locks");
    assert!(error.is_transient() && !error.is_busy(), "{error:?}");
    assert!(dlock_tests::in_full(&error).contains("may have forgotten locks"), "{error}");
    assert!(!dlock_tests::in_full(&error).contains("bootstrap"), "they are not new: {error}");
    let greeted = Instant::now();
    let guard = acquire(&registry, "k").await;
    let took = greeted.elapsed();
    assert!(took > LONGEST / 2, "they counted already after {took:?}");
    guard.release().await.expect("held to the end");
    assert!(nodes.servers.iter().filter(|server| counts(server)).count() >= 3);
}

pub(super) async fn a_flushed_node_is_noticed_over_its_old_connection() {
    let nodes = RedisNodes::start();
    let registry = registry(&nodes).await;
    acquire(&registry, "k").await.release().await.expect("held");
    for server in &nodes.servers[..3] {
        let _ = server.cli(&["FLUSHALL"]);
    }
    let answer = registry.lock("k").wait(Duration::from_millis(300)).acquire().await;
    let error = answer.expect_err("three have forgotten everything");
    assert!(dlock_tests::in_full(&error).contains("may have forgotten locks"), "{error}");
    acquire(&registry, "k").await.release().await.expect("held");
}

pub(super) async fn a_brand_new_deployment_is_declared() {
    let nodes = RedisNodes::start();
    let cautious = Redlock::builder().max_lease(LONGEST).connect(nodes.urls()).await;
    let cautious = super::registry_over(cautious.expect("the nodes run"));
    let answer = cautious.lock("k").wait(Duration::ZERO).acquire().await;
    let error = answer.expect_err("the nodes may have forgotten locks");
    assert!(dlock_tests::in_full(&error).contains("declare a brand-new deployment"), "{error}");
    // Too late to declare it: the nodes have been used.
    let late = registry(&nodes).await;
    let answer = late.lock("k").wait(Duration::ZERO).acquire().await;
    assert!(answer.is_err_and(|error| !error.is_busy()));
    // Declared in time.
    let nodes = RedisNodes::start();
    acquire(&registry(&nodes).await, "k").await.release().await.expect("held");
}

pub(super) async fn some_new_nodes_are_not_a_new_deployment() {
    let mut nodes = RedisNodes::start();
    let first = registry(&nodes).await;
    acquire(&first, "k").await.release().await.expect("held");
    drop(first);
    // A majority is replaced at once, while the URL still declares the deployment brand-new.
    for server in &mut nodes.servers[..3] {
        server.kill();
        server.restart();
    }
    let began = Instant::now();
    let registry = registry(&nodes).await;
    acquire(&registry, "k").await.release().await.expect("held");
    assert!(began.elapsed() > LONGEST, "new nodes counted at once");
}

pub(super) async fn processes_that_declare_it_together_all_succeed() {
    for _ in 0..5 {
        let nodes = RedisNodes::start();
        let began = Instant::now();
        let urls = nodes.urls();
        let processes = (0..4).map(|_| {
            let urls = urls.clone();
            tokio::spawn(async move {
                let registry = super::registry_over(super::backend_at(urls).await);
                acquire(&registry, "k").await.release().await.expect("held");
            })
        });
        for process in processes.collect::<Vec<_>>() {
            process.await.expect("no panic");
        }
        assert!(began.elapsed() < LONGEST, "a node was quarantined");
        all_count(&nodes.servers).await;
    }
}
