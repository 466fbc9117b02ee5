//! Row locks in PostgreSQL.

use std::time::Duration;

use dlock_runtime::LockError;
use dlock_runtime::transaction::{self, RowLock};
use dlock_tests::servers::PostgresServer;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Acquire, AssertSqlSafe, Executor, PgConnection, PgPool};

use crate::both::{is_busy, lock};

pub async fn pool(server: &PostgresServer, connections: u32) -> PgPool {
    let pool = bare_pool(&server.url(), connections).await;
    transaction::create_tables(&pool).await.expect("the table");
    pool
}

pub async fn bare_pool(url: &str, connections: u32) -> PgPool {
    let options = PgPoolOptions::new().max_connections(connections);
    options.connect(url).await.expect("the server runs")
}

async fn run(connection: &mut PgConnection, statements: &str) {
    try_run(connection, statements).await.expect("the statements");
}

async fn try_run(connection: &mut PgConnection, statements: &str) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await.map(|_| ())
}

async fn text(connection: &mut PgConnection, question: &'static str) -> String {
    sqlx::query_scalar(question).fetch_one(connection).await.expect("an answer")
}

async fn count(pool: &PgPool, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(pool).await.expect("an answer")
}

const QUICK: Duration = Duration::from_millis(50);

pub async fn a_busy_lock_keeps_the_earlier_writes() {
    let server = PostgresServer::start();
    let pool = pool(&server, 4).await;
    pool.execute("CREATE TABLE audit (what text)").await.expect("a table");
    let mut holder = pool.begin().await.expect("a transaction");
    lock(&mut holder, "k").await;

    // Plain SQL: the timeout has aborted the transaction, and its commit succeeds without writing anything.
    let mut plain = pool.begin().await.expect("a transaction");
    run(&mut plain, "INSERT INTO audit VALUES ('plain'); SET LOCAL lock_timeout = 50").await;
    let waited = try_run(&mut plain, "INSERT INTO dlock_rows VALUES ('k')").await;
    waited.expect_err("the row is locked");
    plain.commit().await.expect("the commit that sqlx reports");
    assert_eq!(count(&pool, "SELECT count(*) FROM audit").await, 0);

    let mut ours = pool.begin().await.expect("a transaction");
    run(&mut ours, "INSERT INTO audit VALUES ('ours')").await;
    let busy = transaction::lock(&mut ours, "k").wait(QUICK).await.expect_err("it is locked");
    assert!(busy.is_busy(), "{busy}");
    run(&mut ours, "INSERT INTO audit VALUES ('ours too')").await;
    ours.commit().await.expect("a commit");
    assert_eq!(count(&pool, "SELECT count(*) FROM audit").await, 2);
}

pub async fn no_setting_outlives_the_call() {
    let server = PostgresServer::start();
    let pool = pool(&server, 1).await;
    let holders = self::pool(&server, 1).await;
    let settings =
        "SELECT current_setting('lock_timeout') || ' ' || current_setting('statement_timeout')";
    let watched = "SELECT current_setting('client_connection_check_interval')";
    let mut connection = pool.acquire().await.expect("a connection");
    run(&mut connection, "SET lock_timeout = '7s'; SET statement_timeout = '11s'").await;

    // Plain SQL: a setting made for one statement also applies to later ones.
    let mut plain = connection.begin().await.expect("a transaction");
    run(&mut plain, "SET LOCAL lock_timeout = 50; INSERT INTO dlock_rows VALUES ('plain')").await;
    assert_eq!(text(&mut plain, settings).await, "50ms 11s");
    plain.rollback().await.expect("a rollback");

    let mut ours = connection.begin().await.expect("a transaction");
    run(&mut ours, "SET LOCAL lock_timeout = '1234ms'").await;
    lock(&mut ours, "free").await;
    assert_eq!(text(&mut ours, settings).await, "1234ms 11s");
    assert_eq!(text(&mut ours, watched).await, "0");
    let mut holder = holders.begin().await.expect("a transaction");
    lock(&mut holder, "held").await;
    let busy = transaction::lock(&mut ours, "held").wait(QUICK).await;
    busy.expect_err("it is locked");
    assert_eq!(text(&mut ours, settings).await, "1234ms 11s");
    assert_eq!(text(&mut ours, watched).await, "0");
    ours.commit().await.expect("a commit");
    assert_eq!(text(&mut connection, settings).await, "7s 11s");
    // A connection check interval that was already set is kept.
    run(&mut connection, "SET client_connection_check_interval = '3s'").await;
    let mut ours = connection.begin().await.expect("a transaction");
    lock(&mut ours, "free").await;
    assert_eq!(text(&mut ours, watched).await, "3s");
}

pub async fn a_snapshot_is_refused() {
    let server = PostgresServer::start();
    let pool = pool(&server, 4).await;
    pool.execute("CREATE TABLE products (stock int); INSERT INTO products VALUES (1)")
        .await
        .expect("a table");
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let begin = AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"));
        let mut stale = pool.begin_with(begin).await.expect("a transaction");
        let stock = "SELECT stock::text FROM products";
        let before = text(&mut stale, stock).await;
        pool.execute("UPDATE products SET stock = stock - 1").await.expect("a sale");

        let refused = transaction::lock(&mut stale, "k").await.expect_err("a snapshot");
        assert!(matches!(refused, LockError::Transaction { .. }), "{refused:?}");
        let message = dlock_tests::in_full(&refused);
        for part in [&*level.to_lowercase(), "stale", "READ COMMITTED", "begin_with"] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
        // `any_isolation` grants the lock, and a plain read still shows the stale stock.
        transaction::lock(&mut stale, "k").any_isolation().await.expect("the lock");
        assert_eq!(text(&mut stale, stock).await, before);
    }
}

pub async fn a_rollback_to_a_savepoint_releases_its_locks() {
    let server = PostgresServer::start();
    let pool = pool(&server, 4).await;
    let mut outer = pool.begin().await.expect("a transaction");
    lock(&mut outer, "outer").await;
    let mut inner = outer.begin().await.expect("a savepoint");
    lock(&mut inner, "inner").await;
    inner.rollback().await.expect("a rollback to it");
    assert!(!is_busy(&pool, "inner").await && is_busy(&pool, "outer").await);
    let mut inner = outer.begin().await.expect("a savepoint");
    lock(&mut inner, "inner").await;
    inner.commit().await.expect("its release");
    assert!(is_busy(&pool, "inner").await && is_busy(&pool, "outer").await);
    outer.commit().await.expect("a commit");
    assert!(!is_busy(&pool, "inner").await && !is_busy(&pool, "outer").await);
}

pub async fn several_keys_are_all_or_none() {
    let server = PostgresServer::start();
    let pool = pool(&server, 4).await;
    let mut holder = pool.begin().await.expect("a transaction");
    lock(&mut holder, "b").await;
    let mut ours = pool.begin().await.expect("a transaction");
    let busy = transaction::lock_all(&mut ours, ["a", "b", "c"]).wait(QUICK).await;
    assert!(busy.as_ref().is_err_and(LockError::is_busy), "{busy:?}");
    assert!(!is_busy(&pool, "a").await, "the first key stays locked without the second");
    holder.commit().await.expect("a commit");
    let locks = transaction::lock_all(&mut ours, ["c", "a", "b"]).await.expect("free");
    let tokens: Vec<_> = locks.holds().iter().map(RowLock::fencing_token).collect();
    assert_eq!(tokens.len(), 3);
    assert_eq!(locks.get(&"c".into()).map(RowLock::fencing_token), Some(tokens[2]));
    for key in ["a", "b", "c"] {
        assert!(is_busy(&pool, key).await);
    }
}

pub async fn nothing_is_left_behind() {
    let server = PostgresServer::start();
    let pool = pool(&server, 4).await;
    for number in 0..10 {
        let mut transaction = pool.begin().await.expect("a transaction");
        lock(&mut transaction, &format!("k{number}")).await;
        lock(&mut transaction, &format!("k{number}")).await;
        if number % 2 == 0 {
            transaction.commit().await.expect("a commit");
        }
    }
    assert_eq!(count(&pool, "SELECT count(*) FROM dlock_rows").await, 0);
}

pub async fn a_missing_table_is_reported() {
    let server = PostgresServer::start();
    let pool = bare_pool(&server.url(), 2).await;
    pool.execute("CREATE TABLE audit (what text)").await.expect("a table");
    let mut transaction = pool.begin().await.expect("a transaction");
    run(&mut transaction, "INSERT INTO audit VALUES ('before')").await;
    let error = transaction::lock(&mut transaction, "k").await.expect_err("no table");
    let message = dlock_tests::in_full(&error);
    for part in ["create_tables", "src/stores/postgres/rows.sql"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert!(!error.is_transient());
    transaction.commit().await.expect("a commit");
    assert_eq!(count(&pool, "SELECT count(*) FROM audit").await, 1);
}

pub async fn the_documented_privileges_are_enough() {
    let server = PostgresServer::start();
    let owner = bare_pool(&server.url(), 2).await;
    // Only the privileges that the file lists. The schema belongs to the owner.
    owner
        .execute("CREATE ROLE shop LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        .await
        .expect("a role");
    let shop = bare_pool(&server.url_of("shop", None, "postgres"), 2).await;
    let refused = transaction::create_tables(&shop).await.expect_err("it may not");
    assert!(dlock_tests::in_full(&refused).contains("src/stores/postgres/rows.sql"), "{refused}");

    transaction::create_tables(&owner).await.expect("the owner may");
    let refused = transaction::create_tables(&shop).await.expect_err("it may not use it");
    assert!(dlock_tests::in_full(&refused).contains("privileges"), "{refused}");
    owner
        .execute("GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_rows TO shop; GRANT USAGE ON SEQUENCE dlock_tokens TO shop")
        .await
        .expect("what earlier versions needed");
    let refused = transaction::create_tables(&shop).await.expect_err("it may not raise tokens");
    for part in ["UPDATE", "dlock_tokens", "src/stores/postgres/rows.sql"] {
        assert!(dlock_tests::in_full(&refused).contains(part), "{part} is not in: {refused}");
    }
    let mut transaction = shop.begin().await.expect("a transaction");
    let refused = transaction::lock(&mut transaction, "k").await.expect_err("no token");
    assert!(dlock_tests::in_full(&refused).contains("src/stores/postgres/rows.sql"), "{refused}");
    assert!(!is_busy(&owner, "k").await, "it is locked without a token");
    transaction.rollback().await.expect("a rollback");

    owner.execute("GRANT UPDATE ON SEQUENCE dlock_tokens TO shop").await.expect("a privilege");
    transaction::create_tables(&shop).await.expect("it is there");
    let mut transaction = shop.begin().await.expect("a transaction");
    lock(&mut transaction, "k").await;
    assert!(is_busy(&owner, "k").await);
    transaction.commit().await.expect("a commit");
}

pub async fn one_connection_is_enough() {
    let server = PostgresServer::start();
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
