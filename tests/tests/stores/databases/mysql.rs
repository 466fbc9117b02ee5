//! The MySQL backend, on MariaDB.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dlock_runtime::{BackendError, Registry, Wait, backend};
use dlock_tests::servers::MariaDbServer;
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};

use super::both::{Database, Options, shared_methods};
use crate::steps::{acquire, registry};

/// A server, and how often its statement count was queried: each such query counts itself.
pub struct MySql(MariaDbServer, AtomicI64);

impl MySql {
    async fn connection(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.0.url()).await.expect("the server runs")
    }

    async fn backend(&self) -> backend::MySql {
        backend::MySql::connect(&self.0.url()).await.expect("the server runs")
    }
}

async fn ask(connection: &mut MySqlConnection, statements: &str) -> Option<i64> {
    let rows = sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).fetch_all(connection).await;
    rows.expect("the statements").last().map(|row| row.try_get(0).expect("a number"))
}

impl Database for MySql {
    type Backend = backend::MySql;
    type Sqlx = sqlx::MySql;
    type RowLock = MySqlConnection;

    const TABLE_WITHOUT_CLAIMANT: &'static str = "CREATE TABLE dlock_leases (lock_key VARBINARY(512) NOT NULL PRIMARY KEY,
            owner VARCHAR(33) CHARACTER SET ascii COLLATE ascii_bin NULL,
            token BIGINT UNSIGNED NOT NULL, expires_at DATETIME(6) NOT NULL,
            gone MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            gone_before MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            gone_since DATETIME(6) NOT NULL,
            lock_group MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NULL,
            group_until DATETIME(6) NOT NULL) ENGINE = InnoDB; INSERT INTO dlock_leases VALUES ('', NULL, 0, '1970-01-01', '', '', '1970-01-01', NULL, '1970-01-01')";
    const TABLE_WITHOUT_A_VERSION: &'static str = "CREATE TABLE dlock_leases (lock_key VARBINARY(512) NOT NULL PRIMARY KEY,
            owner VARCHAR(33) CHARACTER SET ascii COLLATE ascii_bin NULL,
            token BIGINT UNSIGNED NOT NULL, expires_at DATETIME(6) NOT NULL,
            gone MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            gone_before MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            gone_since DATETIME(6) NOT NULL,
            lock_group MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NULL,
            group_until DATETIME(6) NOT NULL, claimant VARCHAR(1000) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '') ENGINE = InnoDB; INSERT INTO dlock_leases VALUES ('', NULL, 1152921504606846976, '1970-01-01', '', '', '1970-01-01', NULL, '1970-01-01', ''), ('alone', '0123456789abcdef0123456789abcdef', 7, UTC_TIMESTAMP(6) + INTERVAL 1 MINUTE, '', '', '1970-01-01', NULL, '1970-01-01', 'host,1,1,shop::price')";
    const ACQUIRE: &'static str = "INTO dlock_leases";
    const CONNECTIONS_OF_SHOP: &'static str =
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'shop'";

    fn start() -> Self {
        Self(MariaDbServer::start(), AtomicI64::new(0))
    }

    shared_methods!(backend::MySql, MySqlConnection, MySqlPool, MySqlPoolOptions);

    fn url_by(&self, port: u16) -> String {
        format!("mysql://root@127.0.0.1:{port}/dlock")
    }

    fn url_of_shop(&self) -> String {
        self.0.url_of("shop", None, "dlock")
    }

    async fn settings(pool: &MySqlPool) -> String {
        let settings = "SELECT CONCAT(@@max_statement_time, ' ', @@innodb_lock_wait_timeout)";
        sqlx::query_scalar(settings).fetch_one(pool).await.expect("a text")
    }

    async fn waiting(&self) -> i64 {
        let waiting = "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'INNODB_ROW_LOCK_CURRENT_WAITS'";
        self.ask(waiting).await.expect("a number")
    }

    async fn ask(&self, statements: &str) -> Option<i64> {
        ask(&mut self.connection().await, statements).await
    }

    async fn statements(&self) -> i64 {
        let count = "SELECT CAST(SUM(VARIABLE_VALUE) AS SIGNED) FROM information_schema.GLOBAL_STATUS \
             WHERE VARIABLE_NAME IN ('COM_INSERT_SELECT', 'COM_INSERT', 'COM_UPDATE', 'COM_DELETE', 'COM_SELECT')";
        let asked = self.1.fetch_add(1, Ordering::Relaxed) + 1;
        self.ask(count).await.expect("a number") - asked
    }

    async fn age(&self) {
        let age = "UPDATE dlock_leases SET expires_at = expires_at - INTERVAL 3 MINUTE, \
                   gone_since = gone_since - INTERVAL 3 MINUTE";
        self.ask(age).await;
    }

    async fn make_shop(&self) {
        self.ask("CREATE USER shop IDENTIFIED BY ''").await;
        self.ask("CREATE TABLE products (stock int); GRANT SELECT ON products TO shop").await;
    }
}

/// The acquire waits for the key's row while it holds the lock on the first row. Another transaction
/// holds the key's row and requests the first row. It has written more, so the acquire is the victim.
pub async fn a_deadlock_inside_an_acquire_is_retried() {
    let server = MySql::start();
    let registry = registry(server.backend().await);
    acquire(&registry, "k").await.release().await.expect("held");
    server.ask("CREATE TABLE heavy (n int)").await;
    let deadlocks = "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'INNODB_DEADLOCKS'";
    let mut connection = server.connection().await;
    ask(&mut connection, "BEGIN; SELECT 1 FROM dlock_leases WHERE lock_key = 'k' FOR UPDATE").await;
    for _ in 0..50 {
        ask(&mut connection, "INSERT INTO heavy VALUES (1)").await;
    }
    let acquiring = tokio::spawn(registry.lock("k").wait(Wait::Forever).acquire());
    // Not INNODB_TRX: if queried more often than every 0.1 s, it keeps returning its first answer.
    let waiting = "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'INNODB_ROW_LOCK_CURRENT_WAITS'";
    while server.ask(waiting).await == Some(0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = server.ask(deadlocks).await;
    ask(&mut connection, "UPDATE dlock_leases SET token = token WHERE lock_key = ''").await;
    while server.ask(deadlocks).await == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ask(&mut connection, "COMMIT").await;
    let guard = acquiring.await.expect("no panic").expect("the deadlock is retried");
    guard.release().await.expect("held to the end");
}

pub async fn every_isolation_level_works() {
    for level in ["READ-COMMITTED", "SERIALIZABLE"] {
        let server = MariaDbServer::start_with(&[("transaction-isolation", level)]);
        let server = MySql(server, AtomicI64::new(0));
        let registries: Vec<Registry> =
            [server.backend().await, server.backend().await].into_iter().map(registry).collect();
        contend(&registries).await;
    }
}

/// Runs tasks of several processes on a few shared keys and on new ones.
pub async fn contend(registries: &[Registry]) {
    let tasks: Vec<_> = (0..40)
        .map(|number: usize| {
            let registry = registries[number % registries.len()].clone();
            tokio::spawn(async move {
                for round in 0..5 {
                    let key = format!("k{}", (number + round) % 7);
                    acquire(&registry, &key).await.release().await.expect("held to the end");
                    let key = format!("new{number}-{round}");
                    acquire(&registry, &key).await.release().await.expect("held to the end");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no error");
    }
}

pub async fn a_replica_that_may_not_write_is_transient() {
    let server = MySql::start();
    server.make_shop().await;
    let owner = server.backend().await;
    drop(owner);
    server.ask("GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_leases TO shop").await;
    let shop = backend::MySql::connect(&server.url_of_shop()).await.expect("it may");
    server.ask("SET GLOBAL read_only = ON").await;
    let registry = registry(shop);
    let refused = registry.lock("k").wait(Duration::ZERO).acquire().await.expect_err("read only");
    assert!(refused.is_transient() && !refused.is_busy(), "{refused:?}");
    let waiter = tokio::spawn(registry.lock("k").wait(Duration::from_secs(30)).acquire());
    server.ask("SET GLOBAL read_only = OFF").await;
    drop(waiter.await.expect("no panic").expect("it may write again"));
}

/// A connection idle for too long, a rollback by another group member, a node that is not ready: errors
/// of MySQL 8 and Galera, raised here by a trigger.
pub async fn a_temporary_failure_is_transient() {
    let server = MySql::start();
    let registry = registry(server.backend().await);
    for number in [4031, 3101, 1047] {
        server
            .ask(&format!(
                "CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON dlock_leases FOR EACH ROW \
                 SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}"
            ))
            .await;
        // A new key each time: the previous acquire may still be being undone in this process.
        let lock = registry.lock(format!("k{number}")).wait(Duration::ZERO);
        let refused = lock.acquire().await.expect_err("the table refuses");
        assert!(refused.is_transient() && !refused.is_busy(), "{number}: {refused:?}");
    }
    server.ask("DROP TRIGGER refuse").await;
    acquire(&registry, "k").await.release().await.expect("held");
}

pub async fn a_backend_of_one_connection_deletes_idle_rows_of_row_locks() {
    let server = MySql::start();
    let pool = MySqlPool::connect(&server.0.url()).await.expect("the server runs");
    dlock_runtime::transaction::create_tables(&pool).await.expect("it may");
    let idle = "INSERT INTO dlock_rows VALUES ('k', 7, UTC_TIMESTAMP(6) - INTERVAL 2 HOUR); \
        UPDATE dlock_rows SET token = 7, used_at = UTC_TIMESTAMP(6) - INTERVAL 2 HOUR WHERE lock_key = ''";
    server.ask(idle).await;
    let one = backend::MySql::builder().max_connections(1).connect(&server.0.url()).await;
    let one = one.expect("the server runs");
    one.delete_idle_rows().await.expect("a sweep");
    let left = "SELECT COUNT(*) FROM dlock_rows WHERE lock_key <> ''";
    assert_eq!(server.ask(left).await, Some(0));
}
