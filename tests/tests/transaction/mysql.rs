//! Row locks in MySQL and MariaDB.

use std::time::{Duration, Instant};

use dlock_runtime::LockError;
use dlock_runtime::transaction;
use dlock_tests::servers::MariaDbServer;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{Acquire, AssertSqlSafe, Executor, MySqlConnection, MySqlPool};

use crate::both::{is_busy, lock};

/// A pool whose transactions are `READ COMMITTED`, with the table created.
pub async fn pool(server: &MariaDbServer, connections: u32) -> MySqlPool {
    let pool = bare_pool(&server.url(), connections).await;
    transaction::create_tables(&pool).await.expect("the table");
    pool
}

pub async fn bare_pool(url: &str, connections: u32) -> MySqlPool {
    let options =
        MySqlPoolOptions::new().max_connections(connections).after_connect(|connection, _| {
            Box::pin(async move {
                run(connection, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await;
                Ok(())
            })
        });
    options.connect(url).await.expect("the server runs")
}

async fn run(connection: &mut MySqlConnection, statements: &str) {
    let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
    connection.execute(statements).await.expect("the statements");
}

async fn number(connection: &mut MySqlConnection, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(connection).await.expect("an answer")
}

async fn count(pool: &MySqlPool, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(pool).await.expect("an answer")
}

const QUICK: Duration = Duration::from_millis(50);

async fn earlier_writes_are_kept(server: &MariaDbServer) {
    let pool = pool(server, 4).await;
    pool.execute("CREATE TABLE audit (what text)").await.expect("a table");
    let mut holder = pool.begin().await.expect("a transaction");
    lock(&mut holder, "k").await;
    let mut ours = pool.begin().await.expect("a transaction");
    run(&mut ours, "INSERT INTO audit VALUES ('ours')").await;
    let busy = transaction::lock(&mut ours, "k").wait(QUICK).await.expect_err("it is locked");
    assert!(busy.is_busy(), "{busy}");
    run(&mut ours, "INSERT INTO audit VALUES ('ours too')").await;
    ours.commit().await.expect("a commit");
    assert_eq!(count(&pool, "SELECT count(*) FROM audit").await, 2);
}

pub async fn a_busy_lock_keeps_the_earlier_writes() {
    earlier_writes_are_kept(&MariaDbServer::start()).await;
}

pub async fn a_busy_lock_keeps_earlier_writes_even_if_timeouts_roll_back() {
    let server = MariaDbServer::start_with(&[("innodb-rollback-on-timeout", "ON")]);
    let pool = pool(&server, 4).await;
    pool.execute("CREATE TABLE other (what text)").await.expect("a table");
    let mut holder = pool.begin().await.expect("a transaction");
    lock(&mut holder, "k").await;

    // Plain SQL: the timeout also rolls back the earlier write.
    let mut plain = pool.begin().await.expect("a transaction");
    run(&mut plain, "INSERT INTO other VALUES ('plain'); SET innodb_lock_wait_timeout = 1").await;
    let waited = plain.execute("SELECT token FROM dlock_rows WHERE lock_key = 'k' FOR UPDATE");
    waited.await.expect_err("the row is locked");
    plain.commit().await.expect("the commit that sqlx reports");
    assert_eq!(count(&pool, "SELECT count(*) FROM other").await, 0);
    holder.rollback().await.expect("a rollback");

    earlier_writes_are_kept(&server).await;
}

pub async fn no_setting_outlives_the_call() {
    let server = MariaDbServer::start();
    let pool = pool(&server, 1).await;
    let holders = self::pool(&server, 1).await;
    let mut holder = holders.begin().await.expect("a transaction");
    lock(&mut holder, "held").await;
    let mut connection = pool.acquire().await.expect("a connection");
    let limit = "SELECT CAST(@@innodb_lock_wait_timeout AS SIGNED)";
    let longest = "SELECT CAST(@@max_statement_time * 1000 AS SIGNED)";

    // Plain SQL: the timeout cannot be shorter than a second, and stays set.
    let mut plain = connection.begin().await.expect("a transaction");
    run(&mut plain, "SET innodb_lock_wait_timeout = 1").await;
    let began = Instant::now();
    let waited = plain.execute("SELECT token FROM dlock_rows WHERE lock_key = 'held' FOR UPDATE");
    waited.await.expect_err("the row is locked");
    assert!(began.elapsed() > Duration::from_millis(900));
    plain.rollback().await.expect("a rollback");
    assert_eq!(number(&mut connection, limit).await, 1);

    run(&mut connection, "SET innodb_lock_wait_timeout = 7, max_statement_time = 11").await;
    let mut ours = connection.begin().await.expect("a transaction");
    lock(&mut ours, "free").await;
    let busy = transaction::lock(&mut ours, "held").wait(QUICK).await;
    busy.expect_err("it is locked");
    assert_eq!(number(&mut ours, limit).await, 7);
    assert_eq!(number(&mut ours, longest).await, 11_000);
    ours.commit().await.expect("a commit");
    assert_eq!(number(&mut connection, limit).await, 7);
}

/// Creates a product with one item left.
async fn product(pool: &MySqlPool) {
    pool.execute("CREATE TABLE products (stock int)").await.expect("a table");
    pool.execute("INSERT INTO products VALUES (1)").await.expect("a row");
}

const STOCK: &str = "SELECT CAST(stock AS SIGNED) FROM products";

async fn sell(pool: &MySqlPool) {
    let mut transaction = pool.begin().await.expect("a transaction");
    lock(&mut transaction, "product").await;
    run(&mut transaction, "UPDATE products SET stock = stock - 1").await;
    transaction.commit().await.expect("a commit");
}

pub async fn a_snapshot_is_refused() {
    let server = MariaDbServer::start();
    let pool = pool(&server, 4).await;
    let usual = MySqlPool::connect(&server.url()).await.expect("the server runs");
    product(&pool).await;

    // Plain SQL: even with the row locked, a plain read still shows the item that was sold meanwhile.
    let mut plain = usual.begin().await.expect("a transaction");
    assert_eq!(number(&mut plain, STOCK).await, 1);
    sell(&pool).await;
    run(&mut plain, "SELECT token FROM dlock_rows WHERE lock_key = 'product' FOR UPDATE").await;
    assert_eq!(number(&mut plain, STOCK).await, 1);
    plain.rollback().await.expect("a rollback");

    let mut stale = usual.begin().await.expect("a transaction");
    let refused = transaction::lock(&mut stale, "product").await.expect_err("a snapshot");
    assert!(matches!(refused, LockError::Transaction { .. }), "{refused:?}");
    let message = dlock_tests::in_full(&refused);
    for part in ["REPEATABLE-READ", "stale", "READ COMMITTED", "after_connect"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    transaction::lock(&mut stale, "product").any_isolation().await.expect("the lock");
}

/// A transaction with its own isolation level: the session's level does not show it.
pub async fn a_snapshot_of_one_transaction_is_refused() {
    let server = MariaDbServer::start();
    let pool = pool(&server, 4).await;
    product(&pool).await;
    sell(&pool).await;
    let mut connection = pool.acquire().await.expect("a connection");
    run(&mut connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await;
    let mut stale = connection.begin().await.expect("a transaction");
    number(&mut stale, STOCK).await;
    sell(&pool).await;
    let refused = transaction::lock(&mut stale, "product").await.expect_err("a snapshot");
    assert!(matches!(refused, LockError::Transaction { .. }), "{refused:?}");
    stale.rollback().await.expect("a rollback");
    assert!(!is_busy(&pool, "product").await);
}

pub async fn unused_rows_are_deleted() {
    let server = MariaDbServer::start();
    let pool = pool(&server, 4).await;
    for number in 0..5 {
        let mut transaction = pool.begin().await.expect("a transaction");
        lock(&mut transaction, &format!("k{number}")).await;
        transaction.commit().await.expect("a commit");
    }
    let rows = "SELECT COUNT(*) FROM dlock_rows WHERE lock_key <> ''";
    let two_hours_pass = "UPDATE dlock_rows SET used_at = used_at - INTERVAL 2 HOUR";

    transaction::delete_idle_rows(&pool).await.expect("a sweep");
    assert_eq!(count(&pool, rows).await, 5, "they were used a moment ago");
    pool.execute(two_hours_pass).await.expect("aged rows");
    transaction::delete_idle_rows(&pool).await.expect("a sweep");
    assert_eq!(count(&pool, rows).await, 5, "their tokens were remembered a moment ago");
    pool.execute(two_hours_pass).await.expect("aged rows");
    let mut holder = pool.begin().await.expect("a transaction");
    let token = lock(&mut holder, "k0").await.fencing_token();
    transaction::delete_idle_rows(&pool).await.expect("a sweep");
    assert_eq!(count(&pool, rows).await, 1, "all but the one that is locked");

    // Tokens keep growing if the clock is set back, even for a key whose row was deleted.
    pool.execute("UPDATE dlock_rows SET token = token + 1000000000000 WHERE lock_key = ''")
        .await
        .expect("a token far ahead");
    let mut transaction = pool.begin().await.expect("a transaction");
    let later = lock(&mut transaction, "k1").await.fencing_token();
    assert!(later.get() > token.get() + 500_000_000_000, "{later} follows {token}");
}

pub async fn a_missing_table_is_reported() {
    let server = MariaDbServer::start();
    let pool = bare_pool(&server.url(), 2).await;
    pool.execute("CREATE TABLE audit (what text)").await.expect("a table");
    let mut transaction = pool.begin().await.expect("a transaction");
    run(&mut transaction, "INSERT INTO audit VALUES ('before')").await;
    let error = transaction::lock(&mut transaction, "k").await.expect_err("no table");
    let message = dlock_tests::in_full(&error);
    for part in ["create_tables", "src/stores/mysql/rows.sql"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert!(!error.is_transient());
    transaction.commit().await.expect("a commit");
    assert_eq!(count(&pool, "SELECT count(*) FROM audit").await, 1);
}

pub async fn the_documented_privileges_are_enough() {
    let server = MariaDbServer::start();
    let owner = bare_pool(&server.url(), 2).await;
    owner.execute("CREATE USER shop IDENTIFIED BY ''").await.expect("a user");
    owner.execute("CREATE TABLE products (stock int)").await.expect("a table");
    owner.execute("GRANT SELECT, UPDATE ON products TO shop").await.expect("a privilege");
    let shop = bare_pool(&server.url_of("shop", None, "dlock"), 2).await;
    let refused = transaction::create_tables(&shop).await.expect_err("it may not");
    assert!(dlock_tests::in_full(&refused).contains("src/stores/mysql/rows.sql"), "{refused}");

    transaction::create_tables(&owner).await.expect("the owner may");
    let refused = transaction::create_tables(&shop).await.expect_err("it may not use it");
    assert!(dlock_tests::in_full(&refused).contains("privileges"), "{refused}");
    owner
        .execute("GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_rows TO shop")
        .await
        .expect("privileges");
    transaction::create_tables(&shop).await.expect("it is there");
    let mut transaction = shop.begin().await.expect("a transaction");
    lock(&mut transaction, "k").await;
    assert!(is_busy(&owner, "k").await);
    transaction.commit().await.expect("a commit");
}

pub async fn one_connection_is_enough() {
    let server = MariaDbServer::start();
    let pool = pool(&server, 1).await;
    for _ in 0..3 {
        let mut transaction = pool.begin().await.expect("a transaction");
        lock(&mut transaction, "k").await;
        transaction.commit().await.expect("a commit");
        // A call dropped halfway ends its transaction, and the pool remains usable.
        let mut dropped = pool.begin().await.expect("a transaction");
        let locking = transaction::lock(&mut dropped, "k").into_future();
        drop(tokio::time::timeout(Duration::from_micros(200), locking).await);
    }
    assert!(!is_busy(&pool, "k").await);
}
