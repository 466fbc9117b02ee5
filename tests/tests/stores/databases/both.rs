//! Tests that run on both databases.

use std::time::{Duration, Instant};

use dlock_runtime::backend::{Backend, Claim, Release};
use dlock_runtime::{BackendError, FencingToken, Handover, LockError, Registry, Wait};
use dlock_tests::proxy::Proxy;
use tokio::time::sleep;

use crate::steps::{self, acquire, registry};

/// A kind of database server, and how its backend is used.
pub trait Database: Send + Sync + Sized + 'static {
    type Backend: Backend + Clone + std::fmt::Debug;
    type Sqlx: sqlx::Database;
    /// Keeps a row locked until dropped.
    type RowLock: Send;

    /// Creates the lease table as it was before it had the column `claimant`.
    const TABLE_WITHOUT_CLAIMANT: &'static str;
    /// Creates the lease table as it was before it had a version, with a lease on the key `alone` with token 7.
    /// The row without a key has the token 2^60.
    const TABLE_WITHOUT_A_VERSION: &'static str;
    /// A part of each acquire of a plain lock.
    const ACQUIRE: &'static str;
    const CONNECTIONS_OF_SHOP: &'static str;

    fn start() -> Self;
    fn port(&self) -> u16;
    /// The superuser's URL on this port.
    fn url_by(&self, port: u16) -> String;
    /// The URL of a user that owns nothing.
    fn url_of_shop(&self) -> String;
    fn kill(&mut self);
    fn restart(&mut self);
    fn pause(&mut self);
    fn resume(&mut self);

    fn connect(
        options: Options,
    ) -> impl Future<Output = Result<Self::Backend, BackendError>> + Send;
    /// A backend over a pool of the user's own, of this many connections.
    fn over_a_pool_of(
        connections: u32,
        url: &str,
    ) -> impl Future<Output = (Self::Backend, sqlx::Pool<Self::Sqlx>)> + Send;
    /// Makes a pool open new connections as the user of this URL.
    fn change_user(pool: &sqlx::Pool<Self::Sqlx>, url: &str);
    /// The timeout settings of a pool's connection.
    fn settings(pool: &sqlx::Pool<Self::Sqlx>) -> impl Future<Output = String> + Send;
    /// Locks the row of a key, as a transaction that changes it would.
    fn lock_row(&self, key: &str) -> impl Future<Output = Self::RowLock> + Send;
    /// How many statements currently wait for a row.
    fn waiting(&self) -> impl Future<Output = i64> + Send;
    fn delete_idle_rows(backend: &Self::Backend) -> impl Future<Output = ()> + Send;
    /// Runs statements as the superuser, and returns the first number of the last row.
    fn ask(&self, statements: &str) -> impl Future<Output = Option<i64>> + Send;
    /// The server's own count of statements on the lease table.
    fn statements(&self) -> impl Future<Output = i64> + Send;
    /// Ages every row by three minutes.
    fn age(&self) -> impl Future<Output = ()> + Send;
    /// Creates a user that may log in but not create tables.
    fn make_shop(&self) -> impl Future<Output = ()> + Send;
}

/// The methods of `Database` whose code is the same for both databases.
macro_rules! shared_methods {
    ($backend:ty, $connection:ty, $pool:ty, $pool_options:ty) => {
        fn port(&self) -> u16 {
            self.0.port()
        }

        fn kill(&mut self) {
            self.0.kill();
        }

        fn restart(&mut self) {
            self.0.restart();
        }

        fn pause(&mut self) {
            self.0.pause();
        }

        fn resume(&mut self) {
            self.0.resume();
        }

        async fn connect(options: Options) -> Result<$backend, BackendError> {
            let Options { url, table, connections, limit } = options;
            let builder = <$backend>::builder().table(table).max_connections(connections);
            builder.response_timeout(limit).connect(&url).await
        }

        async fn over_a_pool_of(connections: u32, url: &str) -> ($backend, $pool) {
            let pool = <$pool_options>::new().max_connections(connections).connect(url).await;
            let pool = pool.expect("the server runs");
            (<$backend>::with_pool(pool.clone()).await.expect("the table"), pool)
        }

        fn change_user(pool: &$pool, url: &str) {
            pool.set_connect_options(url.parse().expect("a URL"));
        }

        async fn lock_row(&self, key: &str) -> $connection {
            let connection = <$connection as Connection>::connect(&self.0.url()).await;
            let mut connection = connection.expect("the server runs");
            let lock =
                format!("BEGIN; SELECT 1 FROM dlock_leases WHERE lock_key = '{key}' FOR UPDATE");
            let lock = sqlx::raw_sql(AssertSqlSafe(lock)).fetch_all(&mut connection).await;
            assert_eq!(lock.expect("the statements").len(), 1, "there is no such row");
            connection
        }

        async fn delete_idle_rows(backend: &$backend) {
            backend.delete_idle_rows().await.expect("a sweep");
        }
    };
}
pub(super) use shared_methods;

/// How to connect a backend.
#[derive(Clone, Debug)]
pub struct Options {
    pub url: String,
    pub table: &'static str,
    pub connections: u32,
    pub limit: Duration,
}

impl Options {
    pub fn new(url: String) -> Self {
        Self { url, table: "dlock_leases", connections: 10, limit: Duration::from_secs(5) }
    }
}

fn url<D: Database>(server: &D) -> String {
    server.url_by(server.port())
}

pub async fn backend<D: Database>(server: &D) -> D::Backend {
    D::connect(Options::new(url(server))).await.expect("the server runs")
}

/// A backend with a short response timeout.
async fn short_timeout<D: Database>(url: String) -> D::Backend {
    let limit = Duration::from_millis(300);
    D::connect(Options { limit, ..Options::new(url) }).await.expect("the server runs")
}

pub async fn is_free(backend: &impl Backend, key: &str) -> bool {
    backend.inspect(&key.into()).await.expect("an answer").is_none()
}

pub async fn an_uncontended_cycle_is_two_statements<D: Database>() {
    let server = D::start();
    let registry = registry(backend(&server).await);
    acquire(&registry, "warm").await.release().await.expect("held");
    let before = server.statements().await;
    for number in 0..10 {
        acquire(&registry, &format!("k{number}")).await.release().await.expect("held");
    }
    assert_eq!(server.statements().await - before, 20);
}

pub async fn contended_tasks_of_one_process_cost_two_statements_each<D: Database>() {
    let server = D::start();
    let registry = registry(backend(&server).await);
    let before = server.statements().await;
    call_at_once(&registry, 100, Handover::OFF).await;
    assert_eq!(server.statements().await - before, 200);
}

pub async fn contended_tasks_of_one_process_share_leases<D: Database>() {
    let server = D::start();
    let registry = registry(backend(&server).await);
    let before = server.statements().await;
    let often = Handover::up_to(64, Duration::from_secs(5));
    call_at_once(&registry, 200, often).await;
    // Some of the first tasks may find the key free before the others wait.
    let statements = server.statements().await - before;
    assert!(statements <= 40, "{statements} statements for 200 cycles");
}

/// So many tasks that want one key.
async fn call_at_once(registry: &Registry, tasks: usize, handover: Handover) {
    let lock = || registry.lock("k").wait(Wait::Forever).handover(handover);
    let tasks = (0..tasks).map(|_| tokio::spawn(lock().run(std::future::ready(()))));
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic").expect("the lock");
    }
}

pub async fn processes_hand_over_without_polling<D: Database>() {
    let server = D::start();
    let registries = [registry(backend(&server).await), registry(backend(&server).await)];
    steps::hand_over_without_polling(&registries).await;
}

/// Long enough to span a restart of the server.
const TTL: Duration = Duration::from_secs(8);

pub async fn a_restart_keeps_the_hold<D: Database>() {
    let mut server = D::start();
    let (one, other) = (registry(backend(&server).await), registry(backend(&server).await));
    steps::assert_hold_survives(&one, &other, TTL, || {
        server.kill();
        server.restart();
    })
    .await;
}

pub async fn a_waiter_outlives_a_restart<D: Database>() {
    let mut server = D::start();
    let (one, other) = (registry(backend(&server).await), registry(backend(&server).await));
    let guard = one.lock("k").ttl(Duration::from_mins(1)).acquire().await.expect("the lock");
    let waiter = tokio::spawn(other.lock("k").wait(Duration::from_mins(1)).acquire());
    sleep(Duration::from_millis(100)).await;
    server.kill();
    server.restart();
    guard.release().await.expect("held to the end");
    let released = Instant::now();
    let next = waiter.await.expect("no panic").expect("the lock");
    let took = released.elapsed();
    assert!(took < Duration::from_secs(5), "granted only {took:?} after the release");
    drop(next);
}

pub async fn a_hung_server_fails_an_acquire_at_its_deadline<D: Database>() {
    let mut server = D::start();
    let registry = registry(backend(&server).await);
    acquire(&registry, "warm").await.release().await.expect("held");
    server.pause();
    steps::assert_waits_for_hung_server(&registry).await;
    server.resume();
}

pub async fn an_acquire_that_a_stopped_server_executes_late_grants_nothing<D: Database>() {
    let mut server = D::start();
    for round in 0..5 {
        let backend = short_timeout::<D>(url(&server)).await;
        let registry = registry(backend.clone());
        acquire(&registry, "warm").await.release().await.expect("held");
        let key = format!("k{round}");

        server.pause();
        let lock = registry.lock(&*key).ttl(Duration::from_secs(30));
        let answer = lock.wait(Duration::from_millis(200)).acquire().await;
        assert!(matches!(answer, Err(LockError::Backend { .. })), "{answer:?}");
        server.resume();

        // Whatever the server still executes, nothing may be held once the acquire is undone.
        registry.shutdown(Duration::from_secs(20)).await.expect("the acquire is undone");
        sleep(Duration::from_millis(100)).await;
        assert!(is_free(&backend, &key).await, "a late acquire left a lock, round {round}");
    }
}

pub async fn a_release_that_overtakes_its_acquire_wins<D: Database>() {
    let server = D::start();
    steps::assert_early_release_wins(&backend(&server).await).await;
}

pub async fn a_cut_connection_is_replaced_during_a_hold<D: Database>() {
    let server = D::start();
    let mut proxy = Proxy::start(server.port()).await;
    let backend = short_timeout::<D>(server.url_by(proxy.port())).await;
    let registry = registry(backend);
    let guard = registry.lock("k").ttl(Duration::from_secs(3)).acquire().await.expect("free");
    for _ in 0..3 {
        proxy.cut().await;
        sleep(Duration::from_millis(200)).await;
        proxy.heal().await;
        sleep(Duration::from_millis(1_300)).await;
    }
    assert!(guard.is_held(), "the hold ended with its connection");
    guard.release().await.expect("held to the end");
}

pub async fn a_holder_that_is_cut_off_loses_in_time<D: Database>() {
    let server = D::start();
    let mut proxy = Proxy::start(server.port()).await;
    let cut_off = registry(short_timeout::<D>(server.url_by(proxy.port())).await);
    let other = registry(backend(&server).await);
    let ttl = Duration::from_secs(2);
    let guard = cut_off.lock("k").ttl(ttl).acquire().await.expect("the lock");
    proxy.cut().await;
    let began = Instant::now();
    let lost = guard.lost().await;
    let took = began.elapsed();
    assert!(lost.is_lost() && took <= ttl, "lost only after {took:?}");
    let next = acquire(&other, "k").await;
    assert!(began.elapsed() < ttl + Duration::from_secs(1));
    assert!(next.fencing_token() > guard.fencing_token());
    // Once reconnected, it must not release the next holder's lock.
    proxy.heal().await;
    assert!(guard.release().await.is_err_and(|error| error.is_lost()));
    next.release().await.expect("the old holder did not release it");
}

pub async fn a_half_open_connection_does_not_keep_a_hold<D: Database>() {
    let server = D::start();
    let proxy = Proxy::start(server.port()).await;
    let cut_off = registry(short_timeout::<D>(server.url_by(proxy.port())).await);
    let other = registry(backend(&server).await);
    let ttl = Duration::from_secs(2);
    let guard = cut_off.lock("k").ttl(ttl).acquire().await.expect("the lock");
    proxy.stall();
    let began = Instant::now();
    let lost = guard.lost().await;
    let took = began.elapsed();
    assert!(lost.is_lost() && took <= ttl, "lost only after {took:?}");
    let next = acquire(&other, "k").await;
    // The delayed renewals are executed now and must change nothing.
    proxy.resume();
    sleep(Duration::from_millis(200)).await;
    assert!(guard.release().await.is_err_and(|error| error.is_lost()));
    next.release().await.expect("an old renewal did not reacquire it");
}

pub async fn a_waiter_that_is_cut_off_fails_at_its_deadline<D: Database>() {
    let server = D::start();
    let mut proxy = Proxy::start(server.port()).await;
    let holder = registry(backend(&server).await);
    let guard = acquire(&holder, "k").await;
    let cut_off = registry(short_timeout::<D>(server.url_by(proxy.port())).await);
    for half_open in [false, true] {
        proxy.heal().await;
        let wait = Duration::from_secs(2);
        let began = Instant::now();
        let waiter = tokio::spawn(cut_off.lock("k").wait(wait).acquire());
        sleep(Duration::from_millis(300)).await;
        if half_open {
            proxy.stall();
        } else {
            proxy.cut().await;
        }
        let answer = waiter.await.expect("no panic");
        let took = began.elapsed();
        let error = answer.expect_err("it is held");
        assert!(error.is_transient(), "{error:?}");
        assert!(took >= wait && took < wait + Duration::from_secs(2), "answered after {took:?}");
    }
    // If it is reconnected while it waits, it gets the lock once that is free.
    let waiter = tokio::spawn(cut_off.lock("k").wait(Duration::from_secs(30)).acquire());
    sleep(Duration::from_millis(300)).await;
    proxy.heal().await;
    guard.release().await.expect("held to the end");
    drop(waiter.await.expect("no panic").expect("the lock"));
}

pub async fn requests_dropped_half_way_do_not_poison_a_pool_of_one<D: Database>() {
    let server = D::start();
    let options = Options { connections: 1, ..Options::new(url(&server)) };
    let backend = D::connect(options).await.expect("the server runs");
    let registry = registry(backend.clone());
    acquire(&registry, "warm").await.release().await.expect("held");
    for micros in (0..2_000).step_by(40) {
        let claim = Claim::new("k".into(), Duration::from_secs(30));
        let limit = Duration::from_micros(micros);
        // Directly on the backend: the engine would wait for a request it has sent.
        drop(tokio::time::timeout(limit, backend.try_acquire(&claim)).await);
        let abandon = Release { late_acquire: true, keep_for: None };
        backend.release(&claim, abandon).await.expect("an answer");
    }
    acquire(&registry, "k").await.release().await.expect("held to the end");
}

pub async fn an_existing_pool_can_be_used<D: Database>() {
    let server = D::start();
    let (one, other) = (D::over_a_pool_of(2, &url(&server)).await.0, backend(&server).await);
    let (one, other) = (registry(one), registry(other));
    let guard = acquire(&one, "k").await;
    let waiter = tokio::spawn(other.lock("k").wait(Wait::Forever).acquire());
    guard.release().await.expect("held to the end");
    let guard = waiter.await.expect("no panic").expect("the lock");
    let waiter = tokio::spawn(one.lock("k").wait(Wait::Forever).acquire());
    guard.release().await.expect("held to the end");
    drop(waiter.await.expect("no panic").expect("the lock"));
}

pub async fn unused_rows_are_deleted_and_tokens_still_grow<D: Database>() {
    let server = D::start();
    let backend = backend(&server).await;
    let registry = registry(backend.clone());
    let rows = "SELECT COUNT(*) FROM dlock_leases WHERE lock_key <> ''";
    let mut last = FencingToken::new(0);
    for number in 0..5 {
        let guard = acquire(&registry, &format!("k{number}")).await;
        last = last.max(guard.fencing_token());
        guard.release().await.expect("held");
    }
    // As issued under a clock that was an hour ahead.
    let ahead = i64::try_from(last.get()).expect("63 bits") + 3_600_000_000;
    server.ask(&format!("UPDATE dlock_leases SET token = {ahead} WHERE lock_key = 'k3'")).await;
    let held = acquire(&registry, "held").await;

    D::delete_idle_rows(&backend).await;
    assert_eq!(server.ask(rows).await, Some(6), "they were used a moment ago");
    server.age().await;
    D::delete_idle_rows(&backend).await;
    assert_eq!(server.ask(rows).await, Some(6), "their tokens were remembered a moment ago");
    server.age().await;
    let lease = acquire(&registry, "fresh").await;
    D::delete_idle_rows(&backend).await;
    let left = server.ask(rows).await;
    // The aging has expired the held lease too. The fresh one is still held.
    assert!(matches!(left, Some(1 | 2)), "{left:?} rows are left");
    lease.release().await.expect("its row was kept");

    let next = acquire(&registry, "k3").await;
    assert!(next.fencing_token().get() > ahead.unsigned_abs(), "a token was forgotten");
    drop(held);
}

pub async fn abandoned_acquires_are_eventually_forgotten<D: Database>() {
    let server = D::start();
    let backend = backend(&server).await;
    let abandon = Release { late_acquire: true, keep_for: None };
    for number in 0..20 {
        let claim = Claim::new("k".into(), Duration::from_secs(30));
        backend.release(&claim, abandon).await.expect("an answer");
        if number % 5 == 4 {
            server.age().await;
        }
    }
    let remembered =
        "SELECT LENGTH(gone) + LENGTH(gone_before) FROM dlock_leases WHERE lock_key = 'k'";
    let length = server.ask(remembered).await.expect("a row");
    assert!(length <= 10 * 32, "{length} digits are remembered");
    for _ in 0..4 {
        server.age().await;
        D::delete_idle_rows(&backend).await;
    }
    assert_eq!(server.ask("SELECT COUNT(*) FROM dlock_leases WHERE lock_key <> ''").await, Some(0));
}

pub async fn another_table_is_another_set_of_locks<D: Database>() {
    let server = D::start();
    let options = Options { table: "locks_of_billing", ..Options::new(url(&server)) };
    let billing = registry(D::connect(options).await.expect("the table"));
    let shop = registry(backend(&server).await);
    let guard = acquire(&shop, "k").await;
    acquire(&billing, "k").await.release().await.expect("held");
    guard.release().await.expect("held");
}

pub async fn an_invalid_table_name_is_refused<D: Database>() {
    let server = D::start();
    for table in ["", "a b", "a;b", "1a", "a.b.c", "a.", "\"a\"", "x'"] {
        let options = Options { table, ..Options::new(url(&server)) };
        let refused = D::connect(options).await.expect_err("no name");
        assert!(refused.to_string().contains("valid table name"), "{refused}");
        assert!(!refused.is_transient());
    }
}

pub async fn a_password_is_never_shown<D: Database>() {
    let server = D::start();
    let right = url(&server);
    let (scheme, rest) = right.split_once("://").expect("a URL");
    let host = rest.split_once('@').expect("a user").1;
    let nobody = dlock_tests::servers::free_port().expect("a port");
    let closed = host.replace(&server.port().to_string(), &nobody.to_string());
    for url in [
        // Nobody listens; an invalid port; an unknown user.
        format!("{scheme}://root:s3cret@{closed}"),
        format!("{scheme}://root:s3cret@127.0.0.1:none/x"),
        format!("{scheme}://nobody:s3cret@{host}?sslmode=nonsense&ssl-mode=nonsense"),
    ] {
        let error = D::connect(Options::new(url)).await.expect_err("it cannot be reached");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
    let with_one = right.replace('@', ":s3cret@");
    if let Ok(backend) = D::connect(Options::new(with_one)).await {
        assert!(!format!("{backend:?}").contains("s3cret"));
    }
}

pub async fn the_documented_privileges_are_enough<D: Database>() {
    let server = D::start();
    server.make_shop().await;
    let shop = || D::connect(Options::new(server.url_of_shop()));
    let refused = shop().await.expect_err("it may not make the table");
    assert!(refused.to_string().contains("/leases.sql"), "{refused}");
    assert!(!refused.is_transient());
    // The owner creates it.
    let owner = backend(&server).await;
    let refused = shop().await.expect_err("it may not use the table");
    assert!(refused.to_string().contains("/leases.sql"), "{refused}");
    server.ask("GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_leases TO shop").await;
    let backend = shop().await.expect("it may");
    let registry = registry(backend.clone());
    let guard = acquire(&registry, "k").await;
    let waiter = tokio::spawn(registry.lock("k").wait(Wait::Forever).acquire());
    guard.release().await.expect("held to the end");
    let guard = waiter.await.expect("no panic").expect("the lock");
    assert!(!is_free(&owner, "k").await);
    assert!(registry.lock("k").force_release().await.expect("allowed"));
    assert!(guard.release().await.expect_err("released by force").is_lost());
    D::delete_idle_rows(&backend).await;
}
