//! A single server.

use std::time::{Duration, Instant};

use dlock_runtime::backend::ZooKeeper;
use dlock_runtime::{LockError, Registry, Wait};
use dlock_tests::proxy::Proxy;
use dlock_tests::servers::ZooKeeperServer;
use tokio::time::sleep;

use super::{LONG, acquire, nodes, registry, registry_over, steps, until};

const REQUESTS: &str = "zk_packets_received";

pub(super) async fn an_uncontended_cycle_is_three_requests() {
    let server = ZooKeeperServer::start();
    let registry = registry(&server.url_with(LONG)).await;
    // The first use of a key creates its parent node.
    acquire(&registry, "k").await.release().await.expect("held");
    let guard = acquire(&registry, "keep").await;
    let cycles = 40;
    let before = server.statistic(REQUESTS);
    for _ in 0..cycles {
        acquire(&registry, "k").await.release().await.expect("held");
    }
    let requests = server.statistic(REQUESTS) - before;
    // The session itself sends a few requests too.
    let others = 12;
    assert!(
        (cycles * 3..=cycles * 3 + others).contains(&requests),
        "{requests} requests in {cycles} cycles"
    );
    guard.release().await.expect("held to the end");
}

pub(super) async fn a_release_wakes_one_of_two_hundred_waiters() {
    const WAITERS: u64 = 200;
    let server = ZooKeeperServer::start();
    let url = server.url_with(LONG);
    let holder = registry(&url).await;
    let guard = acquire(&holder, "k").await;
    let mut waiters = vec![];
    for _ in 0..WAITERS {
        let registry = registry(&url).await;
        let lock = registry.lock("k").wait(Wait::Forever);
        waiters.push(tokio::spawn(steps::acquire_once(lock)));
    }
    until("all are queued", || server.statistic("zk_watch_count") == WAITERS).await;
    let (before, began) = (server.statistic(REQUESTS), Instant::now());
    steps::hand_to_all(guard, waiters).await;
    let requests = server.statistic(REQUESTS) - before;
    // Each reads the queue, proves its session and releases. Every session sends heartbeats.
    let beats = WAITERS * 2 * (began.elapsed().as_secs() + 2);
    assert!(
        requests <= WAITERS * 5 + beats,
        "{requests} requests, up to {beats} of them heartbeats"
    );
}

pub(super) async fn holders_and_waiters_survive_a_restart() {
    let mut server = ZooKeeperServer::start();
    let url = server.url_with(LONG);
    let (one, other) = (registry(&url).await, registry(&url).await);
    let guard = acquire(&one, "k").await;
    let waiter = tokio::spawn(other.lock("k").wait(Wait::Forever).acquire());
    until("it waits", || server.statistic("zk_watch_count") == 1).await;
    server.kill();
    server.restart();
    until("both are back", || server.statistic("zk_num_alive_connections") >= 2).await;
    sleep(Duration::from_millis(LONG / 3)).await;
    assert!(guard.is_held() && !waiter.is_finished());
    let token = guard.fencing_token();
    guard.release().await.expect("held to the end");
    let next = waiter.await.expect("no panic").expect("the lock");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
    until("nobody holds", || nodes(&server) == 0).await;
}

pub(super) async fn a_dead_server_fails_callers_at_their_deadline_and_ends_the_hold() {
    let mut server = ZooKeeperServer::start();
    let (one, other) = (registry(&server.url()).await, registry(&server.url()).await);
    let guard = acquire(&one, "k").await;
    server.kill();
    let left = guard.remaining();
    let began = Instant::now();
    for wait in [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(1_500)] {
        let key = format!("k{}", wait.as_millis());
        steps::assert_fails_at_deadline(&other, &key, wait).await;
    }
    let lost = guard.lost().await;
    assert!(lost.is_lost(), "{lost:?}");
    assert!(began.elapsed() < left.max(Duration::from_secs(4)) + Duration::from_millis(500));
}

/// The network is silent until the session has expired, and then recovers.
pub(super) async fn an_expired_session_is_replaced() {
    let server = ZooKeeperServer::start();
    let mut proxy = Proxy::start(server.port()).await;
    let url = server.url().replace(&server.port().to_string(), &proxy.port().to_string());
    let (one, other) = (registry(&url).await, registry(&server.url()).await);
    let guard = acquire(&one, "k").await;
    let token = guard.fencing_token();
    let waiter = tokio::spawn(other.lock("k").wait(Wait::Forever).acquire());
    until("it waits", || server.statistic("zk_watch_count") == 1).await;
    proxy.stall();
    let next = waiter.await.expect("no panic").expect("the lock, once the session has expired");
    assert!(!guard.is_held(), "two holders: the session has expired, but its holder does not know");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
    assert!(guard.release().await.is_err_and(|error| LockError::is_lost(&error)));
    proxy.heal().await;
    // In a new session.
    acquire(&one, "k").await.release().await.expect("held to the end");
}

pub(super) async fn a_node_whose_creation_got_no_reply_is_removed() {
    // If the key's parent node were removed too, the stalled reply would not be that of the creation.
    let server = ZooKeeperServer::start_leaving_folders();
    let mut proxy = Proxy::start(server.port()).await;
    let url = server.url_with(LONG);
    let url = url.replace(&server.port().to_string(), &proxy.port().to_string());
    let registry = registry(&url).await;
    // Makes sure that the parent node exists and that all earlier requests are answered.
    let settle = async || acquire(&registry, "k").await.release().await.expect("held");
    for round in 0..3 {
        settle().await;
        proxy.stall_answers();
        let answer = registry.lock("k").wait(Duration::from_millis(200)).acquire().await;
        assert!(answer.is_err(), "the grant was never received: {answer:?}");
        until("it was created", || nodes(&server) == 1).await;
        // The replies are lost with their connection, or arrive late.
        if round % 2 == 0 {
            proxy.cut().await;
        }
        proxy.heal().await;
        until("it is removed", || nodes(&server) == 0).await;
    }
    // A claim whose creation got no reply finds its node again.
    settle().await;
    proxy.stall_answers();
    let late = tokio::spawn(registry.lock("k").wait(Wait::Forever).acquire());
    until("it was created", || nodes(&server) == 1).await;
    proxy.cut().await;
    proxy.heal().await;
    let guard = late.await.expect("no panic").expect("the lock");
    assert_eq!(nodes(&server), 1, "one of them is an orphan");
    guard.release().await.expect("held to the end");
}

/// The nodes that hold `k` or wait for it.
fn queue_of_k(server: &ZooKeeperServer) -> Vec<String> {
    server.ephemerals().into_iter().filter(|path| path.contains("/k/")).collect()
}

/// Lets the server execute a creation whose reply is lost, and keeps the network down until the search for the
/// node times out too.
async fn lose_a_creation(server: &ZooKeeperServer, proxy: &mut Proxy, before: usize) {
    until("it was created", || queue_of_k(server).len() == before + 1).await;
    proxy.cut().await;
    // A request times out after half a session timeout.
    sleep(Duration::from_millis(LONG / 2 + 300)).await;
    proxy.heal().await;
}

/// A registry behind a proxy. The parent node of the key `k` exists.
async fn behind_a_proxy(server: &ZooKeeperServer) -> (Registry, Proxy) {
    let proxy = Proxy::start(server.port()).await;
    let url = server.url_with(LONG);
    let url = url.replace(&server.port().to_string(), &proxy.port().to_string());
    let registry = registry(&url).await;
    acquire(&registry, "k").await.release().await.expect("held");
    (registry, proxy)
}

pub(super) async fn an_unconfirmed_creation_leaves_no_orphan_that_blocks_the_key() {
    let server = ZooKeeperServer::start_leaving_folders();
    let (registry, mut proxy) = behind_a_proxy(&server).await;
    proxy.stall_answers();
    let late = tokio::spawn(registry.lock("k").wait(Wait::Forever).acquire());
    lose_a_creation(&server, &mut proxy, 0).await;
    let guard = tokio::time::timeout(Duration::from_secs(20), late).await;
    let guard = guard.expect("not blocked by its own orphan").expect("no panic").expect("the lock");
    assert_eq!(queue_of_k(&server).len(), 1, "one of them is an orphan");
    guard.release().await.expect("held to the end");
    until("nothing is left", || queue_of_k(&server).is_empty()).await;
}

pub(super) async fn an_abandoned_unconfirmed_creation_leaves_nothing() {
    let server = ZooKeeperServer::start_leaving_folders();
    let (registry, mut proxy) = behind_a_proxy(&server).await;
    let other = self::registry(&server.url_with(LONG)).await;
    let guard = acquire(&other, "k").await;
    proxy.stall_answers();
    let late = tokio::spawn(registry.lock("k").wait(Duration::from_secs(8)).acquire());
    lose_a_creation(&server, &mut proxy, 1).await;
    let answer = late.await.expect("no panic");
    assert!(answer.is_err(), "somebody else holds it: {answer:?}");
    until("only the holder is there", || queue_of_k(&server).len() == 1).await;
    guard.release().await.expect("held to the end");
    assert_eq!(queue_of_k(&server), Vec::<String>::new());
}

pub(super) async fn nothing_is_left_behind() {
    let server = ZooKeeperServer::start();
    let before = server.statistic("zk_znode_count");
    let url = server.url();
    {
        let (one, other) = (registry(&url).await, registry(&url).await);
        for number in 0..20 {
            let key = format!("k{number}");
            let guard = acquire(&one, &key).await;
            let lock = other.lock(&key).wait(Duration::from_millis(20));
            assert!(lock.acquire().await.is_err_and(|error| error.is_busy()));
            guard.release().await.expect("held");
            // Some are abandoned in flight.
            let lock = other.lock(format!("gone{number}"));
            drop(tokio::time::timeout(Duration::from_micros(number * 40), lock.acquire()).await);
        }
        for registry in [&one, &other] {
            registry.shutdown(Duration::from_secs(10)).await.expect("all is released");
        }
        assert_eq!(server.ephemerals(), Vec::<String>::new());
    }
    // The server removes empty parent nodes, and the sessions are closed.
    until("no parent node is left", || server.statistic("zk_znode_count") == before).await;
    until("no session is left", || server.statistic("zk_global_sessions") == 0).await;
}

pub(super) async fn credentials_guard_the_nodes() {
    let server = ZooKeeperServer::start();
    let url = server.url().replacen("://", "://shop:s3cret%2Fword@", 1);
    let backend = ZooKeeper::connect(&url).await.expect("the server runs");
    assert!(!format!("{backend:?}").contains("s3cret"));
    let registry_of_shop = registry_over(backend);
    let guard = acquire(&registry_of_shop, "k").await;
    let other = registry(&server.url().replacen("://", "://other:wr0ng@", 1)).await;
    let answer = other.lock("k").wait(Duration::from_secs(1)).acquire().await;
    let error = answer.expect_err("no access to the key's node");
    assert!(!error.is_transient(), "{error:?}");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("not authorized") && !shown.contains("wr0ng"), "{shown}");
    guard.release().await.expect("held to the end");
}

/// First the old password, then both, then the new one. There are never two locks, and nobody is refused.
pub(super) async fn a_password_changes_while_services_run() {
    let server = ZooKeeperServer::start_leaving_folders();
    let url = |password| server.url().replacen("://", &format!("://shop:{password}@"), 1);
    let with_both = async || {
        let builder = ZooKeeper::builder().also_credentials("shop", "n3w");
        registry_over(builder.connect(&url("0ld")).await.expect("the server runs"))
    };
    // Each creates a parent node that the other uses, and they exclude each other.
    let meet = async |one: &Registry, other: &Registry, key: &str| {
        let guard = acquire(one, key).await;
        let answer = other.lock(key).wait(Duration::ZERO).acquire().await;
        assert!(answer.is_err_and(|error| error.is_busy()), "two locks");
        guard.release().await.expect("held to the end");
        acquire(other, key).await.release().await.expect("held to the end");
    };
    let old = registry(&url("0ld")).await;
    acquire(&old, "first").await.release().await.expect("held to the end");
    let both = with_both().await;
    meet(&old, &both, "of the old one").await;
    meet(&both, &old, "of both").await;
    // The last process that uses only the old password ends.
    drop(old);
    let last = with_both().await;
    let new = registry(&url("n3w")).await;
    meet(&last, &new, "of the last").await;
    meet(&new, &last, "of the new one").await;
    drop((both, last));
    for key in ["first", "of the old one", "of both", "of the last", "of the new one"] {
        acquire(&new, key).await.release().await.expect("held to the end");
    }
}

pub(super) async fn an_outage_causes_few_connections() {
    let mut server = ZooKeeperServer::start();
    let proxy = Proxy::start(server.port()).await;
    let url = server.url().replace(&server.port().to_string(), &proxy.port().to_string());
    let backend = ZooKeeper::connect(&url).await.expect("the server runs");
    let registry = registry_over(backend);
    acquire(&registry, "k").await.release().await.expect("held to the end");
    server.kill();
    // Longer than the session survives without its server.
    sleep(Duration::from_secs(4)).await;
    steps::assert_outage_causes_few_connections(&registry, &proxy).await;
    server.restart();
    acquire(&registry, "k").await.release().await.expect("held to the end");
}

pub(super) async fn locks_live_below_the_chroot() {
    let server = ZooKeeperServer::start();
    let url = server.url().replace('?', "/services/shop?");
    let one = registry(&url).await;
    let guard = acquire(&one, "product:100").await;
    let paths = server.ephemerals();
    assert!(paths[0].starts_with("/services/shop/dlock/product:100/_c_"), "{paths:?}");
    // Another root is another lock.
    let other = registry_over(
        ZooKeeper::builder().root("/others").connect(&url).await.expect("the server runs"),
    );
    acquire(&other, "product:100").await.release().await.expect("held");
    guard.release().await.expect("held to the end");
}

pub(super) async fn an_invalid_url_is_a_one_line_error() {
    for (url, part) in [
        ("zookeeper://u:secret@127.0.0.1", "host:port"),
        ("zookeeper://u:secret@127.0.0.1:1?colour=red", "`colour`"),
        ("zookeeper://u:secret@127.0.0.1:1?session_timeout_ms=1&colour=secret", "`colour`"),
        ("zookeeper://u:secret@127.0.0.1:1?session_timeout_ms=2s", "milliseconds"),
        (
            "zookeeper://u:secret@127.0.0.1:1,127.0.0.1:2",
            "127.0.0.1:1,127.0.0.1:2 could not be reached",
        ),
    ] {
        steps::assert_one_line_error(url, part).await;
    }
}
