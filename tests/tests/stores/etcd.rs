//! etcd on real servers: faults, logins, clusters; and in a module what requests and leases cost.

mod leases;

use std::time::{Duration, Instant};

use dlock_runtime::backend::Etcd;
use dlock_runtime::{LockError, Registry, Wait};
use dlock_tests::proxy::Proxy;
use dlock_tests::servers::{EtcdCluster, EtcdServer};
use dlock_tests::trials::Trials;
use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::steps::{self, acquire, until};

pub(super) fn add(trials: &mut Trials) {
    macro_rules! add {
        ($module:ident: $($test:ident),* $(,)?) => {
            $(trials.needs("etcd", stringify!($test), $module::$test);)*
        };
    }
    add!(leases:
        an_uncontended_cycle_is_two_requests_and_two_writes,
        callers_that_are_ready_together_share_transactions,
        a_busy_try_writes_nothing,
        a_lease_counts_from_its_grant_and_not_from_its_reuse,
        an_idle_lease_that_was_revoked_is_replaced,
        one_caller_without_a_lease_does_not_fail_its_neighbours,
        an_unanswered_acquire_ends_its_lease,
        a_late_release_does_not_end_the_next_hold,
        claims_of_one_key_have_growing_tokens,
        a_revoked_hold_does_not_pass_on_its_lease,
        the_version_before_shares_the_queue,
        nobody_enters_beside_another_while_the_network_fails,
        renewals_share_reads_but_not_answers,
    );
    add!(self:
        a_release_wakes_one_of_two_hundred_waiters,
        holders_and_waiters_survive_a_restart,
        a_dead_server_fails_callers_at_their_deadline_and_ends_the_hold,
        a_half_open_network_ends_the_hold_before_its_lease,
        a_lease_shorter_than_the_servers_is_refused,
        nothing_is_left_behind,
        credentials_are_checked_and_not_shown,
        a_forgotten_login_is_repeated,
        a_hold_outlives_its_login,
        a_watch_outlives_a_login,
        concurrent_callers_share_one_new_login,
        a_changed_password_is_reported_and_can_be_updated,
        an_outage_causes_few_connections,
        a_flood_of_acquires_keeps_few_requests_in_flight,
        tls_with_a_private_certificate_authority,
        an_invalid_url_is_a_one_line_error,
        holders_and_waiters_survive_the_loss_of_the_leader,
        a_partitioned_member_ends_the_hold_in_time,
        a_minority_may_be_down,
    );
}

async fn registry(url: &str) -> Registry {
    registry_over(Etcd::connect(url).await.expect("the servers run"))
}

fn registry_over(backend: Etcd) -> Registry {
    let builder = Registry::builder().backend("etcd", backend);
    builder.default_ttl(TTL).build().expect("a registry")
}

/// Short enough for the tests to wait for its end.
const TTL: Duration = Duration::from_secs(4);

/// Long enough to outlive a test.
const LONG: Duration = Duration::from_mins(1);

/// The number of requests that the server has started to handle.
fn requests(server: &EtcdServer) -> u64 {
    server.statistic("grpc_server_started_total{")
}

/// The number of keys and of leases on the server.
fn left(server: &EtcdServer) -> (usize, usize) {
    let keys = server.ctl(&["get", "", "--prefix", "--keys-only"]);
    let leases = server.ctl(&["lease", "list"]);
    let keys = keys.lines().filter(|line| !line.is_empty()).count();
    // The first line is a heading.
    (keys, leases.lines().skip(1).filter(|line| !line.trim().is_empty()).count())
}

/// Waits until the queue of `k` has this length, the holder included.
async fn queue(server: &EtcdServer, length: usize) {
    until("the queue", || {
        let keys = server.ctl(&["get", "dlock/k/", "--prefix", "--keys-only"]);
        keys.lines().filter(|line| !line.is_empty()).count() == length
    })
    .await;
}

async fn a_release_wakes_one_of_two_hundred_waiters() {
    const WAITERS: u64 = 200;
    let server = EtcdServer::start();
    let url = server.url();
    let holder = registry(&url).await;
    let guard = holder.lock("k").ttl(LONG).acquire().await.expect("the lock");
    let mut waiters = vec![];
    for _ in 0..WAITERS {
        let registry = registry(&url).await;
        let lock = registry.lock("k").ttl(LONG).wait(Wait::Forever);
        waiters.push(tokio::spawn(steps::acquire_once(lock)));
    }
    let watchers = || server.statistic("etcd_debugging_mvcc_watcher_total");
    until("all are queued", || watchers() == WAITERS).await;
    let before = requests(&server);
    steps::hand_to_all(guard, waiters).await;
    let requests = requests(&server) - before;
    // Each reads the queue, renews its lease, reads its key, and releases and ends the lease with a request each.
    assert!(requests <= WAITERS * 6, "{requests} requests for {WAITERS} hand-overs");
}

async fn holders_and_waiters_survive_a_restart() {
    let mut server = EtcdServer::start();
    let (one, other) = (registry(&server.url()).await, registry(&server.url()).await);
    let guard = one.lock("k").ttl(LONG).acquire().await.expect("the lock");
    let waiter = tokio::spawn(other.lock("k").ttl(LONG).wait(Wait::Forever).acquire());
    queue(&server, 2).await;
    server.kill();
    server.restart();
    sleep(Duration::from_secs(2)).await;
    assert!(guard.is_held() && !waiter.is_finished());
    let token = guard.fencing_token();
    guard.release().await.expect("held to the end");
    let next = waiter.await.expect("no panic").expect("the lock");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
    until("no key is left", || left(&server).0 == 0).await;
}

async fn a_dead_server_fails_callers_at_their_deadline_and_ends_the_hold() {
    let mut server = EtcdServer::start();
    let (one, other) = (registry(&server.url()).await, registry(&server.url()).await);
    let guard = acquire(&one, "k").await;
    server.kill();
    let (began, left) = (Instant::now(), guard.remaining());
    for wait in [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(1_500)] {
        let key = format!("k{}", wait.as_millis());
        steps::assert_fails_at_deadline(&other, &key, wait).await;
    }
    let lost = guard.lost().await;
    assert!(lost.is_lost(), "{lost:?}");
    assert!(began.elapsed() < left + TTL, "ended after {:?}", began.elapsed());
}

async fn a_half_open_network_ends_the_hold_before_its_lease() {
    let server = EtcdServer::start();
    let mut proxy = Proxy::start(server.port()).await;
    let one = registry(&format!("etcd://127.0.0.1:{}", proxy.port())).await;
    let other = registry(&server.url()).await;
    let guard = acquire(&one, "k").await;
    let token = guard.fencing_token();
    let waiter = tokio::spawn(other.lock("k").wait(Wait::Forever).acquire());
    queue(&server, 2).await;
    proxy.stall();
    let next = waiter.await.expect("no panic").expect("the lock, once the lease has expired");
    assert!(!guard.is_held(), "two holders");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
    assert!(guard.release().await.is_err_and(|error| LockError::is_lost(&error)));
    proxy.heal().await;
    acquire(&one, "k").await.release().await.expect("held to the end");
}

async fn a_lease_shorter_than_the_servers_is_refused() {
    let server = EtcdServer::start();
    let registry = registry(&server.url()).await;
    let answer = registry.lock("k").ttl(Duration::from_secs(1)).acquire().await;
    let error = answer.expect_err("below the server's minimum").to_string();
    assert!(error.contains("its shortest is 3s"), "{error}");
}

async fn nothing_is_left_behind() {
    let server = EtcdServer::start();
    {
        let (one, other) = (registry(&server.url()).await, registry(&server.url()).await);
        for number in 0..20 {
            let key = format!("k{number}");
            let guard = acquire(&one, &key).await;
            let lock = other.lock(&key).wait(Duration::from_millis(20));
            assert!(lock.acquire().await.is_err_and(|error| error.is_busy()));
            guard.release().await.expect("held");
            // Some are abandoned in flight.
            let lock = other.lock(format!("gone{number}"));
            drop(tokio::time::timeout(Duration::from_micros(number * 60), lock.acquire()).await);
        }
        for registry in [&one, &other] {
            registry.shutdown(Duration::from_secs(10)).await.expect("all is released");
        }
        assert_eq!(left(&server).0, 0, "keys");
    }
    // Idle leases end by themselves.
    until("no lease", || left(&server) == (0, 0)).await;
    let streams = || server.statistic("etcd_debugging_mvcc_watcher_total");
    until("no watch", || streams() == 0).await;
}

async fn credentials_are_checked_and_not_shown() {
    let server = EtcdServer::start();
    server.enable_auth("s3cret");
    let url = server.url().replacen("://", "://locks:s3cret@", 1);
    let backend = Etcd::connect(&url).await.expect("the right password");
    assert!(!format!("{backend:?}").contains("s3cret"));
    let registry = registry_over(backend);
    acquire(&registry, "k").await.release().await.expect("held to the end");
    let error = Etcd::connect(&url.replace("s3cret", "wr0ng")).await.expect_err("a wrong password");
    let shown = format!("{error} {error:?}");
    assert!(!error.is_transient() && !shown.contains("wr0ng"), "{shown}");
    let nobody = registry_over(Etcd::connect(&server.url()).await.expect("leases need no login"));
    let answer = nobody.lock("k").wait(Duration::from_secs(1)).acquire().await;
    assert!(answer.is_err_and(|error| !error.is_transient()), "keys need a login");
}

/// Enables authentication on the server and connects with credentials.
async fn logged_in(server: &EtcdServer) -> (Registry, Etcd) {
    server.enable_auth("s3cret");
    let url = server.url().replacen("://", "://locks:s3cret@", 1);
    let backend = Etcd::connect(&url).await.expect("the right password");
    (registry_over(backend.clone()), backend)
}

/// The number of successful logins on the server.
fn logins(server: &EtcdServer) -> u64 {
    server.statistic("grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Authenticate\"")
}

async fn a_forgotten_login_is_repeated() {
    let server = EtcdServer::start_forgetting_logins_after(1);
    let (registry, _) = logged_in(&server).await;
    for _ in 0..2 {
        acquire(&registry, "k").await.release().await.expect("held to the end");
        // No request is sent until the login has expired.
        sleep(Duration::from_secs(3)).await;
    }
    let lock = registry.lock("k").wait(Duration::ZERO);
    lock.acquire().await.expect("logged in again").release().await.expect("held to the end");
}

async fn a_hold_outlives_its_login() {
    let server = EtcdServer::start_forgetting_logins_after(1);
    let (registry, _) = logged_in(&server).await;
    // The login expires between two renewals.
    let guard = registry.lock("k").ttl(TTL * 3).acquire().await.expect("the lock");
    sleep(TTL * 5).await;
    assert!(guard.is_held(), "it was not renewed");
    guard.release().await.expect("held to the end");
}

async fn a_watch_outlives_a_login() {
    let server = EtcdServer::start_forgetting_logins_after(1);
    let (one, _) = logged_in(&server).await;
    let url = server.url().replacen("://", "://locks:s3cret@", 1);
    let other = registry(&url).await;
    // The waiter creates its watch after a pause in which its login expires.
    sleep(Duration::from_secs(3)).await;
    let guard = one.lock("k").ttl(LONG).acquire().await.expect("the lock");
    let waiter = tokio::spawn(other.lock("k").ttl(LONG).wait(Wait::Forever).acquire());
    until("it waits", || server.statistic("etcd_debugging_mvcc_watcher_total") == 1).await;
    sleep(Duration::from_secs(3)).await;
    guard.release().await.expect("held to the end");
    let next = waiter.await.expect("no panic").expect("the lock");
    next.release().await.expect("held to the end");
}

async fn concurrent_callers_share_one_new_login() {
    let server = EtcdServer::start_forgetting_logins_after(1);
    let (registry, _) = logged_in(&server).await;
    sleep(Duration::from_secs(3)).await;
    let before = logins(&server);
    let lock = |number| registry.lock(format!("k{number}")).wait(Duration::from_secs(20)).acquire();
    let guards = try_join_all((0..100).map(lock)).await.expect("all of them");
    assert_eq!(logins(&server) - before, 1);
    for guard in guards {
        guard.release().await.expect("held to the end");
    }
}

async fn a_changed_password_is_reported_and_can_be_updated() {
    let server = EtcdServer::start();
    let (registry, backend) = logged_in(&server).await;
    let guard = registry.lock("k").ttl(LONG).acquire().await.expect("the lock");
    for words in [
        &["user", "delete", "locks"][..],
        &["user", "add", "locks:n3xt"],
        &["user", "grant-role", "locks", "locks"],
    ] {
        let _ = server.ctl_as_root(words);
    }
    let answer = registry.lock("other").wait(Duration::from_secs(2)).acquire().await;
    let error = answer.expect_err("the password has changed");
    let shown = format!("{error} {error:?}");
    assert!(!error.is_transient() && !error.is_busy(), "{shown}");
    assert!(shown.contains("credentials") && !shown.contains("s3cret"), "{shown}");
    let wrong = backend.update_credentials("locks", "wr0ng").await;
    let error = wrong.expect_err("a wrong password");
    assert!(!error.is_transient() && !format!("{error:?}").contains("wr0ng"), "{error:?}");
    backend.update_credentials("locks", "n3xt").await.expect("the new password");
    acquire(&registry, "other").await.release().await.expect("held to the end");
    guard.release().await.expect("held to the end");
}

async fn a_flood_of_acquires_keeps_few_requests_in_flight() {
    let server = EtcdServer::start();
    let proxy = Proxy::start(server.port()).await;
    let registry = registry(&format!("etcd://127.0.0.1:{}", proxy.port())).await;
    acquire(&registry, "k").await.release().await.expect("held to the end");
    let lock = |key| registry.lock(key).ttl(LONG).wait(Wait::Forever);
    steps::assert_flood_keeps_few_in_flight(&proxy, 32, || requests(&server), lock).await;
}

async fn an_outage_causes_few_connections() {
    let mut server = EtcdServer::start();
    let proxy = Proxy::start(server.port()).await;
    let registry = registry(&format!("etcd://127.0.0.1:{}", proxy.port())).await;
    acquire(&registry, "k").await.release().await.expect("held to the end");
    server.kill();
    steps::assert_outage_causes_few_connections(&registry, &proxy).await;
    server.restart();
    acquire(&registry, "k").await.release().await.expect("held to the end");
}

async fn tls_with_a_private_certificate_authority() {
    let signed =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let signed = signed.expect("a key pair");
    let server =
        EtcdServer::start_with_tls(&signed.cert.pem(), &signed.signing_key.serialize_pem());
    let url = format!("etcds://localhost:{}", server.port());
    Etcd::connect(&url).await.expect_err("an unknown authority");
    let builder = Etcd::builder().root_certificate(signed.cert.pem());
    let registry = registry_over(builder.connect(&url).await.expect("a known authority"));
    acquire(&registry, "k").await.release().await.expect("held to the end");
}

async fn an_invalid_url_is_a_one_line_error() {
    for (url, part) in [
        ("etcd://u:secret@127.0.0.1", "host:port"),
        ("etcd://secret@127.0.0.1:1", "user:password"),
        ("etcd://u:secret@127.0.0.1:1?colour=secret", "`colour`"),
        ("etcd://127.0.0.1:1,127.0.0.1:2", "127.0.0.1:1,127.0.0.1:2"),
    ] {
        steps::assert_one_line_error(url, part).await;
    }
}

async fn holders_and_waiters_survive_the_loss_of_the_leader() {
    let mut cluster = EtcdCluster::start();
    let (one, other) = (registry(&cluster.url()).await, registry(&cluster.url()).await);
    let long = Duration::from_secs(12);
    let guard = one.lock("k").ttl(long).acquire().await.expect("the lock");
    let waiter = tokio::spawn(other.lock("k").ttl(long).wait(Wait::Forever).acquire());
    queue(&cluster.servers[0], 2).await;
    let leader = cluster.leader();
    cluster.servers[leader].kill();
    sleep(long).await;
    assert!(guard.is_held() && !waiter.is_finished());
    let token = guard.fencing_token();
    guard.release().await.expect("held to the end");
    let next = waiter.await.expect("no panic").expect("the lock");
    assert!(next.fencing_token() > token);
    next.release().await.expect("held to the end");
}

/// The partitioned member is the leader and may keep believing so for a while. The others elect a new one.
async fn a_partitioned_member_ends_the_hold_in_time() {
    let mut cluster = EtcdCluster::start();
    let near = cluster.leader();
    let one = registry(&cluster.servers[near].url()).await;
    let guard = acquire(&one, "k").await;
    let left = guard.remaining();
    let began = Instant::now();
    for (number, server) in cluster.servers.iter_mut().enumerate() {
        if number != near {
            server.pause();
        }
    }
    let lost = guard.lost().await;
    assert!(lost.is_lost(), "{lost:?}");
    assert!(began.elapsed() < left + TTL, "ended after {:?}", began.elapsed());
    for (number, server) in cluster.servers.iter_mut().enumerate() {
        if number != near {
            server.resume();
        }
    }
    assert!(guard.release().await.is_err_and(|error| LockError::is_lost(&error)));
    acquire(&one, "k").await.release().await.expect("held to the end");
}

async fn a_minority_may_be_down() {
    let mut cluster = EtcdCluster::start();
    let (one, other) = (registry(&cluster.url()).await, registry(&cluster.url()).await);
    let long = Duration::from_secs(12);
    let down = (cluster.leader() + 1) % 3;
    for stopped in [false, true] {
        let guard = one.lock("k").ttl(long).wait(Wait::Forever).acquire().await.expect("the lock");
        let waiter = tokio::spawn(other.lock("k").ttl(long).wait(Wait::Forever).acquire());
        if stopped {
            cluster.servers[down].pause();
        } else {
            cluster.servers[down].kill();
        }
        sleep(long / 2).await;
        assert!(guard.is_held() && !waiter.is_finished());
        guard.release().await.expect("held to the end");
        waiter.await.expect("no panic").expect("the lock").release().await.expect("held");
        if stopped {
            cluster.servers[down].resume();
        } else {
            cluster.servers[down].restart();
        }
    }
}
