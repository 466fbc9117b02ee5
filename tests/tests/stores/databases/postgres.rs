//! The PostgreSQL backend.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use dlock_runtime::backend::{Attempt, Backend, Claim, Release, Renewal};
use dlock_runtime::testing::Suite;
use dlock_runtime::{BackendError, Registry, Wait, backend};
use dlock_tests::servers::{PostgresServer, free_port, program, run_as};
use dlock_tests::shifted::ShiftedProxy;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::both::{Database, Options, shared_methods};
use super::mysql::contend;
use crate::steps::{acquire, registry};

pub struct Postgres(pub(super) PostgresServer);

impl Postgres {
    pub(super) async fn lock(&self, statement: &str) -> PgConnection {
        let mut connection = PgConnection::connect(&self.0.url()).await.expect("the server runs");
        let statement = format!("BEGIN; {statement}");
        let locked = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut connection).await;
        assert_eq!(locked.expect("the statements").len(), 1, "there is no such row");
        connection
    }

    pub(super) async fn backend(&self) -> backend::Postgres {
        backend::Postgres::connect(&self.0.url()).await.expect("the server runs")
    }
}

impl Database for Postgres {
    type Backend = backend::Postgres;
    type Sqlx = sqlx::Postgres;
    type RowLock = PgConnection;

    const TABLE_WITHOUT_CLAIMANT: &'static str = r#"CREATE TABLE dlock_leases (lock_key text COLLATE "C" PRIMARY KEY, owner text, token bigint NOT NULL, expires_at timestamptz NOT NULL,
            wanted boolean NOT NULL DEFAULT false, released smallint NOT NULL DEFAULT 0,
            gone text NOT NULL DEFAULT '', gone_before text NOT NULL DEFAULT '',
            gone_since timestamptz NOT NULL DEFAULT '-infinity', lock_group text,
            group_until timestamptz NOT NULL DEFAULT '-infinity') WITH (fillfactor = 50); INSERT INTO dlock_leases (lock_key, token, expires_at) VALUES ('', 0, '-infinity')"#;
    const TABLE_WITHOUT_A_VERSION: &'static str = r#"CREATE TABLE dlock_leases (lock_key text COLLATE "C" PRIMARY KEY, owner text, token bigint NOT NULL, expires_at timestamptz NOT NULL,
            wanted boolean NOT NULL DEFAULT false, released smallint NOT NULL DEFAULT 0,
            gone text NOT NULL DEFAULT '', gone_before text NOT NULL DEFAULT '',
            gone_since timestamptz NOT NULL DEFAULT '-infinity', lock_group text,
            group_until timestamptz NOT NULL DEFAULT '-infinity', claimant text NOT NULL DEFAULT '') WITH (fillfactor = 50); INSERT INTO dlock_leases (lock_key, token, expires_at) VALUES ('', 1152921504606846976, '-infinity'); INSERT INTO dlock_leases (lock_key, owner, token, expires_at, claimant) VALUES ('alone', '0123456789abcdef0123456789abcdef', 7, now() + interval '1 minute', 'host,1,1,shop::price')"#;
    const ACQUIRE: &'static str = "EXECUTE dlock_acquire";
    const CONNECTIONS_OF_SHOP: &'static str =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE usename = 'shop'";

    fn start() -> Self {
        Self(PostgresServer::start())
    }

    shared_methods!(backend::Postgres, PgConnection, PgPool, PgPoolOptions);

    fn url_by(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres")
    }

    fn url_of_shop(&self) -> String {
        self.0.url_of("shop", None, "postgres")
    }

    async fn settings(pool: &PgPool) -> String {
        let settings =
            "SELECT current_setting('statement_timeout') || ' ' || current_setting('lock_timeout')";
        sqlx::query_scalar(settings).fetch_one(pool).await.expect("a text")
    }

    async fn waiting(&self) -> i64 {
        let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        self.ask(waiting).await.expect("a number")
    }

    async fn ask(&self, statements: &str) -> Option<i64> {
        let mut connection = PgConnection::connect(&self.0.url()).await.expect("the server runs");
        let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        let rows = statements.fetch_all(&mut connection).await.expect("the statements");
        rows.last().map(|row| row.try_get_unchecked(0).expect("a number"))
    }

    async fn statements(&self) -> i64 {
        let count = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements; \
            SELECT COALESCE(SUM(calls), 0)::bigint FROM pg_stat_statements \
            WHERE query LIKE '%dlock\\_leases%' AND query NOT LIKE '%pg\\_stat%'";
        self.ask(count).await.expect("a number")
    }

    async fn age(&self) {
        let age = "UPDATE dlock_leases SET expires_at = expires_at - interval '3 minutes', \
                   gone_since = gone_since - interval '3 minutes'";
        self.ask(age).await;
    }

    async fn make_shop(&self) {
        self.ask("CREATE ROLE shop LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    }
}

pub async fn notifications_are_sent_only_if_somebody_waits() {
    let server = Postgres::start();
    let registries = [registry(server.backend().await), registry(server.backend().await)];
    let mut listener = PgListener::connect(&server.0.url()).await.expect("the server runs");
    listener.listen("dlock").await.expect("LISTEN");
    for _ in 0..5 {
        acquire(&registries[0], "k").await.release().await.expect("held");
    }
    let guard = acquire(&registries[0], "k").await;
    let waiter = tokio::spawn(registries[1].lock("k").wait(Wait::Forever).acquire());
    while server.ask("SELECT COUNT(*) FROM dlock_leases_line").await == Some(0) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    guard.release().await.expect("held to the end");
    let guard = waiter.await.expect("no panic").expect("the lock");
    guard.release().await.expect("held to the end");
    for _ in 0..5 {
        acquire(&registries[0], "k").await.release().await.expect("held");
    }
    server.ask("NOTIFY dlock, 'the end'").await;
    let mut notices = vec![];
    loop {
        let notice = listener.recv().await.expect("a notice").payload().to_owned();
        match &*notice {
            "the end" => break,
            // A backend's probe to itself that notifications arrive.
            probe if probe.len() > 512 => {}
            _ => notices.push(notice),
        }
    }
    // The first release told the waiter alone. Behind that one, somebody might have been about to join the line.
    assert_eq!(notices, ["k"]);
}

pub async fn every_isolation_level_works() {
    for level in ["repeatable read", "serializable"] {
        let settings = [("default_transaction_isolation", level)];
        let server = Postgres(PostgresServer::start_with(&settings));
        let registries: Vec<Registry> =
            [server.backend().await, server.backend().await].into_iter().map(registry).collect();
        contend(&registries).await;
    }
}

/// Preparing a statement waits for the table. The server ends that wait although its client is gone.
pub async fn preparing_ends_on_the_server() {
    let server = Postgres::start();
    let limit = Duration::from_millis(900);
    let options = Options { limit, ..Options::new(server.0.url()) };
    let backend = Postgres::connect(options).await.expect("the server runs");
    let mut owner = PgConnection::connect(&server.0.url()).await.expect("the server runs");
    let lock = "BEGIN; LOCK TABLE dlock_leases IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut owner).await.expect("the statements");
    let claim = Claim::new("k".into(), Duration::from_secs(30));
    let asking = {
        let (backend, claim) = (backend.clone(), claim.clone());
        tokio::spawn(async move { backend.try_acquire(&claim).await })
    };
    while server.waiting().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    asking.abort();
    let began = Instant::now();
    while server.waiting().await > 0 {
        assert!(began.elapsed() < Duration::from_secs(4), "a backend still waits for the table");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sqlx::raw_sql("COMMIT").execute(&mut owner).await.expect("the statement");
    let attempt = backend.try_acquire(&claim).await.expect("an answer");
    assert!(matches!(attempt, Attempt::Granted { .. }), "{attempt:?}");
}

pub async fn a_replica_that_may_not_write_is_transient() {
    let server = Postgres::start();
    let registry = registry(server.backend().await);
    let read_only = |on| format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
    server.ask(&read_only("on")).await;
    server.ask("SELECT pg_reload_conf()::int::bigint").await;
    let shown = "SELECT (current_setting('transaction_read_only') = 'on')::int::bigint";
    while server.ask(shown).await != Some(1) {}
    let refused = registry.lock("k").wait(Duration::ZERO).acquire().await.expect_err("read only");
    assert!(refused.is_transient() && !refused.is_busy(), "{refused:?}");
    let waiter = tokio::spawn(registry.lock("k").wait(Duration::from_secs(30)).acquire());
    server.ask(&format!("SET default_transaction_read_only = off; {}", "SELECT 1::bigint")).await;
    let mut connection = PgConnection::connect(&server.0.url()).await.expect("the server runs");
    for statement in
        ["SET default_transaction_read_only = off", &read_only("off"), "SELECT pg_reload_conf()"]
    {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
        statement.execute(&mut connection).await.expect("the statement");
    }
    drop(waiter.await.expect("no panic").expect("it may write again"));
}

pub async fn a_key_that_was_held_before_is_acquired_by_a_simpler_statement() {
    let server = Postgres::start();
    let (one, other) = (server.backend().await, server.backend().await);
    let claim = || Claim::new("k".into(), Duration::from_secs(30));
    let acquire = async |backend: &backend::Postgres, claim: &Claim| {
        backend.try_acquire(claim).await.expect("an answer")
    };
    let mut last = None;
    // A connection prepares its statements at its second use.
    for _ in 0..4 {
        let claim = claim();
        let Attempt::Granted { token, .. } = acquire(&one, &claim).await else { panic!("free") };
        assert!(Some(token) > last, "{token:?} after {last:?}");
        last = Some(token);
        one.release(&claim, Release::default()).await.expect("an answer");
    }
    let held = claim();
    assert!(matches!(acquire(&one, &held).await, Attempt::Granted { .. }));
    let statements =
        "SELECT query FROM pg_stat_activity WHERE query LIKE '%EXECUTE dlock_acquire%'";
    let mut connection = PgConnection::connect(&server.0.url()).await.expect("the server runs");
    let last: Vec<String> =
        sqlx::query_scalar(statements).fetch_all(&mut connection).await.expect("texts");
    let last = last.iter().find(|query| query.contains("EXECUTE dlock_acquire_again"));
    let last = last.expect("it was executed");
    assert!(!last.contains("enable_seqscan"), "the session has the settings: {last}");
    one.release(&held, Release::default()).await.expect("an answer");

    // Somebody else holds the key, and then its row is gone.
    let others = claim();
    assert!(matches!(acquire(&other, &others).await, Attempt::Granted { .. }));
    let own = claim();
    let attempt = acquire(&one, &own).await;
    assert!(matches!(attempt, Attempt::Busy { expires_in: Some(_), .. }), "{attempt:?}");
    other.release(&others, Release::default()).await.expect("an answer");
    let attempt = acquire(&one, &own).await;
    assert!(matches!(attempt, Attempt::Granted { .. }), "{attempt:?}");
    one.release(&own, Release::default()).await.expect("an answer");
    server.ask("DELETE FROM dlock_leases WHERE lock_key = 'k'").await;
    let attempt = acquire(&one, &claim()).await;
    assert!(matches!(attempt, Attempt::Granted { .. }), "{attempt:?}");
}

pub async fn idle_rows_are_deleted_in_pieces_and_around_locked_ones() {
    let server = Postgres::start();
    let backend = server.backend().await;
    let rows = "INSERT INTO dlock_leases (lock_key, token, expires_at) \
                SELECT 'idle:' || n, n, now() - interval '5 minutes' FROM generate_series(1, 25000) n";
    server.ask(rows).await;
    backend.delete_idle_rows().await.expect("a sweep");
    server.age().await;
    // Someone is busy with one of them.
    let mut other = PgConnection::connect(&server.0.url()).await.expect("the server runs");
    let lock = "BEGIN; SELECT 1 FROM dlock_leases WHERE lock_key = 'idle:7' FOR UPDATE";
    sqlx::raw_sql(lock).execute(&mut other).await.expect("the statements");
    backend.delete_idle_rows().await.expect("it waits for no row");
    let left = "SELECT count(*) FROM dlock_leases WHERE lock_key <> ''";
    assert_eq!(server.ask(left).await, Some(1), "only the locked row is left");
    let token = "SELECT token FROM dlock_leases WHERE lock_key = ''";
    assert_eq!(server.ask(token).await, Some(25_000), "no later token is smaller");
    sqlx::raw_sql("COMMIT").execute(&mut other).await.expect("the statement");
    server.age().await;
    backend.delete_idle_rows().await.expect("a sweep");
    assert_eq!(server.ask(left).await, Some(0));
}

/// A proxy that assigns a server connection per transaction and keeps no session.
struct PgBouncer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl PgBouncer {
    fn start(server: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let port = free_port().expect("a port");
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 5\nmax_client_conn = 500\nignore_startup_parameters = extra_float_digits\n\
             server_reset_query_always = 1\nserver_reset_query = DISCARD ALL\n"
        );
        let settings = settings.replace(
            &format!("host=127.0.0.1 port={server}"),
            &format!("host=127.0.0.1 port={server} user=postgres"),
        );
        let path = folder.path().join("pgbouncer.ini");
        std::fs::write(&path, settings).expect("a file");
        // It refuses to run as root, and must be able to read its settings as another user.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
        let mut command = run_as("postgres", &program("pgbouncer").expect("it is installed"));
        command.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("a program that can be run");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, port, _folder: folder }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn a_transaction_pooling_proxy_works() {
    let server = Postgres::start();
    let bouncer = PgBouncer::start(server.port());
    let url = server.url_by(bouncer.port);
    let suite = Suite::new(move || {
        let url = url.clone();
        async move { backend::Postgres::connect(&url).await }
    });
    suite.run().await.assert_passed();
}

pub async fn an_answer_to_another_statement_is_never_a_no() {
    let server = Postgres::start();
    let proxy = ShiftedProxy::start(server.port()).await;
    let backend = backend::Postgres::connect(&server.url_by(proxy.port())).await;
    let backend = backend.expect("the proxy runs");
    let mut claim = Claim::new("k".into(), Duration::from_mins(1));

    // The answer is lost, so the acquire is sent again.
    proxy.replace_next(Postgres::ACQUIRE);
    let attempt = backend.try_acquire(&claim).await.expect("an answer");
    let Attempt::Granted { token, in_doubt, .. } = attempt else { panic!("{attempt:?}") };
    assert!(proxy.is_done() && in_doubt, "{attempt:?}");
    claim.token = Some(token);

    proxy.replace_next("EXECUTE dlock_renew");
    let renewed = backend.renew(&claim).await.expect("an answer");
    assert!(proxy.is_done() && matches!(renewed, Renewal::Renewed { .. }), "{renewed:?}");

    // A release is not sent again: the second copy would find that the lease is not held.
    proxy.replace_next("EXECUTE dlock_release");
    let released = backend.release(&claim, Release::default()).await;
    assert!(proxy.is_done());
    let error = released.expect_err("no answer to the release has arrived");
    assert!(error.is_transient() && error.may_have_been_sent(), "{error:?}");
}

pub async fn a_watch_behind_a_proxy_does_not_wait_for_notifications() {
    let server = Postgres::start();
    let bouncer = PgBouncer::start(server.port());
    let backend = backend::Postgres::connect(&server.url_by(bouncer.port)).await;
    let backend = backend.expect("the proxy runs");
    let claim = Claim::new("k".into(), Duration::from_mins(1));
    backend.try_acquire(&claim).await.expect("an answer");
    // The backend detects this soon after the first watch. After that, even a slow machine is fast once.
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        drop(backend.watch(&claim.key).await.expect("an answer"));
        let took = asked.elapsed();
        if took < Duration::from_millis(200) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "a watch still takes {took:?}");
    }
}
