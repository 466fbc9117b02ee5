//! URLs, credentials, and what is refused at startup.

use std::time::Duration;

use dlock_runtime::Registry;
use dlock_runtime::backend::Redlock;
use dlock_tests::servers::{RedisNodes, RedisServer};

use super::{LONGEST, acquire, registry, registry_over, steps};

pub(super) async fn an_invalid_url_is_a_one_line_error() {
    for (url, part) in [
        ("redlock://:secret@127.0.0.1:1,127.0.0.1:2", "at least three"),
        ("redlock://:secret@127.0.0.1", "host:port"),
        ("redlock://:secret@h:1,h:2,h:1", "h:1 is named twice"),
        ("redlock://:secret@h:1,h:2,h:3/x", "number of a database"),
        ("redlock://:secret@h:1,h:2,h:3?bootstrap=yes", "true or false"),
        ("redlock://:secret@h:1,h:2,h:3?colour=red", "`colour`"),
        (
            "redlock://:secret@127.0.0.1:1,127.0.0.1:2,127.0.0.1:3",
            "127.0.0.1:2 could not be reached",
        ),
    ] {
        steps::assert_one_line_error(url, part).await;
    }
    let error = Redlock::connect(["redis+cluster://h:1", "redis://h:2", "redis://h:3"]).await;
    let error = error.expect_err("a Cluster is not a node").to_string();
    assert!(error.contains("each node is a redis://host:port"), "{error}");
}

pub(super) async fn each_node_has_its_own_password_and_none_is_shown() {
    let passwords = ["0ne%2F", "tw0", "thr33"];
    let servers = ["0ne/", "tw0", "thr33"]
        .map(|password| RedisServer::start_with(&["--save", "", "--requirepass", password]));
    let nodes = servers.iter().zip(passwords);
    let nodes: Vec<_> = nodes
        .map(|(server, password)| format!(":{password}@127.0.0.1:{}", server.port()))
        .collect();
    let url = format!("redlock://{}?bootstrap=true", nodes.join(","));
    let backend = dlock_runtime::connect(&url).await.expect("the right passwords");
    let registry = Registry::builder().backend("redlock", backend).build().expect("a registry");
    acquire(&registry, "k").await.release().await.expect("held");

    let wrong = url.replace("tw0", "wr0ng").replace("thr33", "wr0ng");
    let error = dlock_runtime::connect(&wrong).await.expect_err("two wrong passwords of three");
    let shown = format!("{error} {error:?} {backend:?}", backend = Redlock::builder());
    for password in ["0ne", "tw0", "thr33", "wr0ng"] {
        assert!(!shown.contains(password), "{shown}");
    }
    assert!(!error.is_transient(), "{shown}");
}

pub(super) async fn a_node_that_evicts_is_refused() {
    let nodes = RedisNodes::start();
    let _ = nodes.servers[4].cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let refused = Redlock::connect(nodes.urls()).await.expect_err("it evicts locks");
    let message = refused.to_string();
    assert!(message.contains("allkeys-lru"), "{message}");
    assert!(message.contains(&nodes.servers[4].port().to_string()), "{message}");
    assert!(!refused.is_transient());
}

/// The permissions that the documentation of Redlock lists.
const PERMISSIONS: &str = "~dlock:* &dlock:* -@all +evalsha +script|load +get +mget +exists +set +del \
                           +pexpire +pttl +time +info +publish +subscribe +unsubscribe +ping";

pub(super) async fn the_documented_permissions_are_enough() {
    let guide = include_str!("../../../../dlock-runtime/src/stores/redlock/guide.md");
    let words: Vec<_> = guide.split_whitespace().collect();
    assert!(words.join(" ").contains(PERMISSIONS), "the guide lists other permissions");
    let nodes = RedisNodes::start();
    for server in &nodes.servers {
        let mut words = vec!["ACL", "SETUSER", "locks", "on", ">s3cret"];
        words.extend(PERMISSIONS.split_whitespace());
        assert!(server.cli(&words).starts_with("OK"));
    }
    let url = nodes.url().replacen("://", "://locks:s3cret@", 1);
    let backend = Redlock::builder().connect_url(&url).await.expect("these credentials");
    let registry = registry_over(backend);
    let guard = acquire(&registry, "k").await;
    let waiter = tokio::spawn(registry.lock("k").wait(Duration::from_secs(20)).acquire());
    // Long enough for a renewal too.
    tokio::time::sleep(LONGEST / 2).await;
    guard.release().await.expect("held to the end");
    let guard = waiter.await.expect("no panic").expect("the lock");
    assert!(registry.lock("k").inspect().await.expect("allowed").is_some());
    assert!(registry.lock("k").force_release().await.expect("allowed"));
    assert!(guard.release().await.expect_err("released by force").is_lost());
}

pub(super) async fn a_minority_may_be_down_at_startup() {
    let mut nodes = RedisNodes::start();
    acquire(&registry(&nodes).await, "k").await.release().await.expect("held");
    for server in &mut nodes.servers[1..3] {
        server.kill();
    }
    let registry = registry(&nodes).await;
    acquire(&registry, "k").await.release().await.expect("held");
    nodes.servers[4].kill();
    let refused = Redlock::connect(nodes.urls()).await.expect_err("two of five");
    assert!(refused.to_string().contains("no majority (3 of 5 nodes)"), "{refused}");
    assert!(refused.is_transient());
}

pub(super) async fn leases_longer_than_configured_are_refused() {
    let nodes = RedisNodes::start();
    let registry = registry(&nodes).await;
    let answer = registry.lock("k").ttl(LONGEST * 2).acquire().await;
    let error = answer.expect_err("longer than the longest").to_string();
    assert!(error.contains("its longest is 2s"), "{error}");
    let answer = registry.lock("k").min_hold(LONGEST * 2).acquire().await;
    let error = answer.expect_err("longer than the longest").to_string();
    assert!(error.contains("min_hold = 4s: its longest is 2s"), "{error}");
}
