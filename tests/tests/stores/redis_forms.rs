//! Redis on more than one server: Cluster, Sentinel and replicas.

use std::time::{Duration, Instant};

use dlock_runtime::backend::Redis;
use dlock_runtime::{LockGuard, Registry, Wait};
use dlock_tests::proxy::Proxy;
use dlock_tests::servers::{RedisCluster, RedisSentinels, RedisServer};
use dlock_tests::trials::Trials;
use tokio::time::sleep;

use super::steps;

pub(super) fn add(trials: &mut Trials) {
    macro_rules! add {
        ($($test:ident),* $(,)?) => { $(trials.needs("redis-server", stringify!($test), $test);)* };
    }
    add!(
        cluster_an_uncontended_cycle_is_two_commands,
        cluster_processes_hand_over_by_messages,
        cluster_a_hold_survives_a_slot_migration,
        cluster_holders_and_waiters_survive_a_failover,
        cluster_a_hung_node_leaves_the_others_alone,
        cluster_a_node_that_evicts_is_refused,
        sentinel_an_uncontended_cycle_is_two_commands,
        sentinel_a_hold_survives_a_demotion,
        sentinel_holders_and_waiters_survive_a_dead_master,
        sentinel_an_unknown_master_is_reported,
        replicas_must_have_a_lock_before_it_counts,
        replica_waits_run_concurrently,
        an_invalid_url_is_a_one_line_error,
    );
}

async fn registry(url: &str) -> Registry {
    steps::registry(Redis::connect(url).await.expect("the servers run"))
}

async fn acquire(registry: &Registry, key: &str) -> LockGuard {
    let lock = registry.lock(key).ttl(Duration::from_secs(20)).wait(Wait::Forever);
    lock.acquire().await.expect("the lock")
}

fn scripts_run_on<'a>(servers: impl IntoIterator<Item = &'a RedisServer>) -> u64 {
    servers.into_iter().map(steps::scripts_run).sum()
}

async fn ten_cycles_are_twenty_commands<'a>(
    registry: &Registry,
    servers: impl Fn() -> Vec<&'a RedisServer>,
) {
    for number in 0..10 {
        acquire(registry, &format!("k{number}")).await.release().await.expect("held");
    }
    // By now every server has loaded the scripts.
    let before = scripts_run_on(servers());
    for number in 0..10 {
        acquire(registry, &format!("k{number}")).await.release().await.expect("held");
    }
    assert_eq!(scripts_run_on(servers()) - before, 20);
}

async fn cluster_an_uncontended_cycle_is_two_commands() {
    let cluster = RedisCluster::start();
    let registry = registry(&cluster.url()).await;
    ten_cycles_are_twenty_commands(&registry, || cluster.nodes.iter().collect()).await;
}

async fn sentinel_an_uncontended_cycle_is_two_commands() {
    let all = RedisSentinels::start();
    let registry = registry(&all.url()).await;
    let master = all.master();
    ten_cycles_are_twenty_commands(&registry, || vec![&all.servers[master]]).await;
}

async fn cluster_processes_hand_over_by_messages() {
    let cluster = RedisCluster::start();
    let registries = [registry(&cluster.url()).await, registry(&cluster.url()).await];
    steps::hand_over_without_polling(&registries).await;
}

/// Moves the slot of a key as resharding does: `ASK` and `TRYAGAIN` during the move, `MOVED` afterwards.
async fn cluster_a_hold_survives_a_slot_migration() {
    let cluster = RedisCluster::start();
    let registry = registry(&cluster.url()).await;
    let lock = registry.lock("k").ttl(Duration::from_secs(3)).wait(Wait::Forever);
    let guard = lock.acquire().await.expect("the lock");
    let stored = "dlock:{k}";
    let from = cluster.master_of(stored);
    let is_other_master =
        |node: &usize| *node != from && cluster.nodes[*node].cli(&["ROLE"]).starts_with("master");
    let to = (0..cluster.nodes.len()).find(is_other_master).expect("three masters");
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    let word = |server: &RedisServer, words: &[&str]| server.cli(words).trim().to_owned();
    let slot = word(source, &["CLUSTER", "KEYSLOT", stored]);
    let (source_id, target_id) =
        (word(source, &["CLUSTER", "MYID"]), word(target, &["CLUSTER", "MYID"]));
    let say = |server: &RedisServer, words: &[&str]| {
        let answer = word(server, words);
        assert!(answer.starts_with("OK"), "{words:?}: {answer}");
    };
    say(target, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]);
    say(source, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]);
    // Renewals continue while the keys are split between the two nodes.
    sleep(Duration::from_millis(1_500)).await;
    let port = target.port().to_string();
    let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]);
    let move_keys = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
    let words: Vec<&str> = move_keys.into_iter().chain(keys.lines()).collect();
    say(source, &words);
    sleep(Duration::from_millis(1_500)).await;
    for server in [target, source] {
        say(server, &["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]);
    }
    sleep(Duration::from_secs(3)).await;
    assert!(guard.is_held(), "the hold ended when its slot moved");
    let token = guard.fencing_token();
    guard.release().await.expect("held to the end");
    let next = acquire(&registry, "k").await;
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
}

/// Replication is asynchronous, so the test waits until the replica has the grant before it is promoted.
async fn cluster_holders_and_waiters_survive_a_failover() {
    let mut cluster = RedisCluster::start();
    let url = cluster.url();
    let (one, other) = (registry(&url).await, registry(&url).await);
    let guard = acquire(&one, "k").await;
    let waiter = tokio::spawn(other.lock("k").wait(Duration::from_mins(1)).acquire());
    sleep(Duration::from_millis(300)).await;
    let master = cluster.master_of("dlock:{k}");
    cluster.nodes[master].wait_for_replicas(1);
    let failing = tokio::task::spawn_blocking(move || {
        cluster.fail_over(master);
        cluster
    });
    let _cluster = failing.await.expect("no panic");
    assert!(!waiter.is_finished(), "a second holder was granted");
    let token = guard.fencing_token();
    guard.release().await.expect("the replica knows the hold");
    let released = Instant::now();
    let next = waiter.await.expect("no panic").expect("the lock");
    let took = released.elapsed();
    assert!(took < Duration::from_secs(5), "granted only {took:?} after the release");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
}

/// No replica takes over, and the only sign of the failure is that the node stops answering.
async fn cluster_a_hung_node_leaves_the_others_alone() {
    let mut cluster = RedisCluster::start();
    for node in &cluster.nodes {
        let _ = node.cli(&["CONFIG", "SET", "cluster-replica-no-failover", "yes"]);
        let _ = node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let hung = cluster.master_of("dlock:{k0}");
    let keys: Vec<_> = (0..30).map(|number| format!("k{number}")).collect();
    let is_there = |key: &&String| cluster.master_of(&format!("dlock:{{{key}}}")) == hung;
    let (there, elsewhere): (Vec<&String>, Vec<&String>) = keys.iter().partition(is_there);
    // The hanging node is the first seed.
    let port = |node: usize| cluster.nodes[node].port();
    let others = (0..cluster.nodes.len()).filter(|node| *node != hung).take(2);
    let nodes: Vec<_> = [hung].into_iter().chain(others).map(port).collect();
    let nodes: Vec<_> = nodes.into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let url = format!("redis+cluster://{}", nodes.join(","));
    let one = registry(&url).await;

    let ttl = Duration::from_secs(3);
    let lock = |key: &str| one.lock(key).ttl(ttl).wait(Wait::Forever);
    let mut held = vec![];
    for key in elsewhere.iter().take(4) {
        held.push(lock(key).acquire().await.expect("free"));
    }
    let lost = lock(there[0]).acquire().await.expect("free");
    cluster.nodes[hung].pause();
    let began = Instant::now();
    // Other tasks keep sending requests to the silent node.
    let waiters: Vec<_> = there[1..]
        .iter()
        .map(|key| one.lock(key.as_str()).wait(Duration::from_mins(1)).acquire())
        .map(tokio::spawn)
        .collect();
    let two = Redis::connect(&url).await.expect("the other nodes answer");
    let two = steps::registry(two);
    let mut slowest = Duration::ZERO;
    while began.elapsed() < ttl * 3 {
        for registry in [&one, &two] {
            let asked = Instant::now();
            let key = elsewhere.last().expect("some are elsewhere");
            let lock = registry.lock(key.as_str()).ttl(ttl).wait(Duration::from_secs(5));
            lock.acquire().await.expect("its node answers").release().await.expect("held");
            slowest = slowest.max(asked.elapsed());
        }
        assert!(held.iter().all(LockGuard::is_held), "lost after {:?}", began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    // No cycle waited for the silent node.
    assert!(slowest < Duration::from_secs(1), "a cycle took {slowest:?}");
    assert!(!lost.is_held(), "it cannot have been renewed");
    for guard in held {
        guard.release().await.expect("held to the end");
    }
    cluster.nodes[hung].resume();
    for waiter in waiters {
        waiter.await.expect("no panic").expect("the node is back").release().await.expect("held");
    }
}

async fn cluster_a_node_that_evicts_is_refused() {
    let cluster = RedisCluster::start();
    let masters: Vec<_> =
        cluster.nodes.iter().filter(|node| node.cli(&["ROLE"]).starts_with("master")).collect();
    let _ = masters[2].cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    let refused = Redis::connect(&cluster.url()).await.expect_err("it evicts locks");
    assert!(refused.to_string().contains("volatile-ttl"), "{refused}");
    assert!(!refused.is_transient());
}

async fn sentinel_a_hold_survives_a_demotion() {
    let all = RedisSentinels::start();
    let url = all.url();
    let (one, other) = (registry(&url).await, registry(&url).await);
    let guard = acquire(&one, "k").await;
    let waiter = tokio::spawn(other.lock("k").wait(Duration::from_mins(1)).acquire());
    sleep(Duration::from_millis(300)).await;
    let all = tokio::task::spawn_blocking(move || {
        all.servers[all.master()].wait_for_replicas(2);
        all.demote_master();
        all
    });
    let _all = all.await.expect("no panic");
    assert!(!waiter.is_finished(), "a second holder was granted");
    let token = guard.fencing_token();
    // The old master is still up and answers READONLY.
    guard.release().await.expect("the new master knows the hold");
    let next = waiter.await.expect("no panic").expect("the lock");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
}

async fn sentinel_holders_and_waiters_survive_a_dead_master() {
    let all = RedisSentinels::start();
    let url = all.url();
    let (one, other) = (registry(&url).await, registry(&url).await);
    let guard = acquire(&one, "k").await;
    let waiter = tokio::spawn(other.lock("k").wait(Duration::from_mins(1)).acquire());
    // While there is no master, every call still meets its deadline.
    sleep(Duration::from_millis(300)).await;
    let failing = tokio::task::spawn_blocking(move || {
        let mut all = all;
        all.servers[all.master()].wait_for_replicas(2);
        all.fail_over();
        all
    });
    let wait = Duration::from_millis(500);
    let began = Instant::now();
    let answer = other.lock("another").wait(wait).acquire().await;
    let took = began.elapsed();
    assert!(answer.is_ok() || took < wait + Duration::from_secs(2), "answered after {took:?}");
    let _all = failing.await.expect("no panic");
    assert!(!waiter.is_finished(), "a second holder was granted");
    let token = guard.fencing_token();
    guard.release().await.expect("the new master knows the hold");
    let next = waiter.await.expect("no panic").expect("the lock");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
}

async fn sentinel_an_unknown_master_is_reported() {
    let all = RedisSentinels::start();
    let url = all.url().replace("/shop", "/nobody");
    let error = Redis::connect(&url).await.expect_err("an unknown master");
    assert!(error.to_string().contains("watches no master `nobody`"), "{error}");
}

async fn replicas_must_have_a_lock_before_it_counts() {
    let mut all = RedisSentinels::start();
    let url = format!("{}?replicas=2", all.url());
    let registry = registry(&url).await;
    let master = all.master();
    assert_eq!(master, 0, "it was just started");
    let guard = acquire(&registry, "k").await;
    guard.release().await.expect("held to the end");

    // One of two replicas is not enough.
    all.servers[1].pause();
    let answer = registry.lock("k").wait(Duration::from_secs(1)).acquire().await;
    let error = answer.expect_err("one replica does not have it");
    assert!(error.is_transient() && !error.is_busy(), "{error:?}");
    assert!(dlock_tests::in_full(&error).contains("1 of 2 replicas"), "{error:?}");
    registry.shutdown(Duration::from_secs(20)).await.expect("the acquire is undone");
    let held = all.servers[master].cli(&["EXISTS", "dlock:{k}"]);
    assert_eq!(held.trim(), "0", "an unreplicated grant was not released");
    all.servers[1].resume();
}

/// If the waits ran one after the other, they would take one replica round trip per lock.
async fn replica_waits_run_concurrently() {
    let master = RedisServer::start_with(&["--save", "", "--repl-diskless-sync-delay", "0"]);
    let far = Proxy::start(master.port()).await;
    let port = far.port().to_string();
    let replica = RedisServer::start_with(&["--save", "", "--replicaof", "127.0.0.1", &port]);
    let (master, replica) = tokio::task::spawn_blocking(move || {
        master.wait_for_replicas(1);
        (master, replica)
    })
    .await
    .expect("no panic");
    let builder = Redis::builder().replicas(1).response_timeout(Duration::from_secs(10));
    let registry = steps::registry(builder.connect(&master.url()).await.expect("it runs"));
    acquire(&registry, "warm").await.release().await.expect("held");
    far.delay(Duration::from_millis(30));

    let mut one = Duration::MAX;
    for round in 0..3 {
        let began = Instant::now();
        acquire(&registry, &format!("one {round}")).await.release().await.expect("held");
        one = one.min(began.elapsed());
    }
    let began = Instant::now();
    let all = (0..50).map(|number| {
        let (registry, replica) = (registry.clone(), replica.url());
        tokio::spawn(async move {
            let key = format!("k{number}");
            let guard = acquire(&registry, &key).await;
            let took = began.elapsed();
            // A granted lock is on the replica.
            let replica = redis::Client::open(replica).expect("a URL");
            let mut replica = replica.get_multiplexed_async_connection().await.expect("it runs");
            let stored = redis::cmd("EXISTS").arg(format!("dlock:{{{key}}}")).to_owned();
            let stored: bool = stored.query_async(&mut replica).await.expect("EXISTS");
            assert!(stored, "granted before the replica had it");
            guard.release().await.expect("held");
            took
        })
    });
    let mut slowest = Duration::ZERO;
    for task in all.collect::<Vec<_>>() {
        slowest = slowest.max(task.await.expect("no panic"));
    }
    assert!(slowest < one * 10, "50 at once took up to {slowest:?}, a single one takes {one:?}");
}

async fn an_invalid_url_is_a_one_line_error() {
    for (url, part) in [
        ("redis://:secret@127.0.0.1:1/?colour=secret", "`colour`"),
        ("redis://:secret@127.0.0.1:1?colour=secret", "`colour`"),
        ("redlock://:secret@127.0.0.1:1,127.0.0.1:2,127.0.0.1:3?colour=secret", "`colour`"),
        ("redis+sentinel://:secret@127.0.0.1:1/shop?colour=secret", "`colour`"),
        ("redis://:secret@127.0.0.1:1/shop", "database"),
        ("redis+cluster://:secret@127.0.0.1", "host:port"),
        ("redis+cluster://:secret@127.0.0.1:1/3", "one database"),
        ("redis+cluster://:secret@127.0.0.1:1?colour=red", "`colour`"),
        ("redis+sentinel://:secret@127.0.0.1:1", "name of their master"),
        ("redis+sentinel://:secret@127.0.0.1:1/shop/x", "number of a database"),
        ("redis+sentinel://:secret@127.0.0.1:1/shop?replicas=all", "number of servers"),
        ("redis+cluster://:secret@127.0.0.1:1", "127.0.0.1:1 could not be reached"),
        ("redis+sentinel://:secret@127.0.0.1:1/shop", "127.0.0.1:1 could not be reached"),
    ] {
        steps::assert_one_line_error(url, part).await;
    }
}
