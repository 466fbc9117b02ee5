//! Tokens of row locks always grow: across a crash, a clock that is set back, a rollback, and beside a process
//! of an older version.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dlock_runtime::transaction;
use dlock_tests::servers::{MariaDbServer, PostgresServer};
use sqlx::{MySql, Pool, Postgres};

use crate::both::{Rows, lock};
use crate::facts::Polls;
use crate::{mysql, postgres};

/// The current time in microseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_micros()).expect("64 bits")
}

/// The token of a lock whose transaction is rolled back. It may have been used outside all the same.
async fn rolled_back<DB: Rows>(pool: &Pool<DB>, key: &str) -> u64 {
    let mut transaction = DB::begin(pool).await;
    let token = lock(&mut transaction, key).await.fencing_token();
    transaction.rollback().await.expect("a rollback");
    token.get()
}

async fn committed<DB: Rows>(pool: &Pool<DB>, key: &str) -> u64 {
    let mut transaction = DB::begin(pool).await;
    let token = lock(&mut transaction, key).await.fencing_token();
    transaction.commit().await.expect("a commit");
    token.get()
}

/// The token of a lock whose holder is still at work.
async fn held<DB: Rows>(pool: &Pool<DB>) -> u64 {
    let mut transaction = DB::begin(pool).await;
    let token = lock(&mut transaction, "k").await.fencing_token().get();
    std::mem::forget(transaction);
    token
}

pub async fn postgres_tokens_grow_over_a_crash() {
    // Uncommitted data reaches the disk only when the WAL writer runs, which it does not during this test.
    let mut server = PostgresServer::start_with(&[("wal_writer_delay", "10000")]);
    postgres::pool(&server, 1).await;
    let mut last = 0;
    for _ in 0..3 {
        let pool = postgres::pool(&server, 4).await;
        sqlx::raw_sql("CHECKPOINT").execute(&pool).await.expect("a checkpoint");
        let token = held(&pool).await;
        assert!(token > last, "{token} follows {last} after a crash");
        last = token;
        server.kill();
        server.restart();
    }
}

pub async fn mysql_tokens_grow_over_a_crash() {
    let mut server = MariaDbServer::start();
    let pool = mysql::pool(&server, 1).await;
    let mut last = committed(&pool, "k").await;
    for _ in 0..3 {
        let pool = mysql::pool(&server, 4).await;
        let token = held(&pool).await;
        assert!(token > last, "{token} follows {last} after a crash");
        last = token;
        server.kill();
        server.restart();
    }
}

pub async fn tokens_are_the_time_or_more<DB: Rows>(pool: &Pool<DB>) {
    for _ in 0..3 {
        let before = now();
        let token = committed(pool, "k").await;
        assert!(token >= before, "{token} at {before}");
    }
}

/// A sequence ahead of the clock has the same effect as a clock that was set back.
pub async fn postgres_tokens_grow_when_the_clock_is_set_back() {
    let server = PostgresServer::start();
    let pool = postgres::pool(&server, 4).await;
    let mut last = now() + 1_000_000_000_000;
    let ahead = format!("SELECT setval('dlock_tokens', {last})");
    Postgres::ask(&mut pool.acquire().await.expect("a connection"), &ahead).await;
    for _ in 0..3 {
        for token in [rolled_back(&pool, "k").await, committed(&pool, "k").await] {
            assert!(token > last, "{token} follows {last}");
            last = token;
        }
    }
}

const REMEMBERED: &str = "SELECT last_value FROM dlock_tokens";

/// Otherwise the next token would be smaller if the clock were set back now.
pub async fn postgres_every_token_is_remembered() {
    let server = PostgresServer::start();
    let pool = postgres::pool(&server, 12).await;
    // As if somebody had created the sequence by hand.
    let behind = "SELECT setval('dlock_tokens', 1)";
    Postgres::ask(&mut pool.acquire().await.expect("a connection"), behind).await;
    for token in [rolled_back(&pool, "k").await, committed(&pool, "k").await] {
        let mut connection = pool.acquire().await.expect("a connection");
        let last = Postgres::ask(&mut connection, REMEMBERED).await.expect("it");
        assert!(last.unsigned_abs() >= token, "{token} was issued, but {last} is remembered");
    }
    // Locks of different keys do not wait for each other, and none undoes what another remembers.
    let tasks = (0..8).map(|task| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for _ in 0..30 {
                let mut transaction = pool.begin().await.expect("a transaction");
                let token = lock(&mut transaction, &format!("k{task}")).await.fencing_token().get();
                let last = Postgres::ask(&mut transaction, REMEMBERED).await.expect("it");
                assert!(
                    last.unsigned_abs() >= token,
                    "{token} was issued, but {last} is remembered"
                );
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
}

/// Two at once could set the sequence below a token that one of them has issued. Waiting for this is not waiting
/// for a holder of the key, so it is not reported as busy.
pub async fn postgres_the_sequence_is_raised_by_one_at_a_time() {
    let server = PostgresServer::start();
    let pool = postgres::pool(&server, 4).await;
    let mut raising = pool.begin().await.expect("a transaction");
    Postgres::ask(&mut raising, "SELECT 1 FROM pg_advisory_xact_lock(1684827999, 1)").await;
    let mut waiter = pool.begin().await.expect("a transaction");
    let wait = Duration::from_millis(300);
    let slow = transaction::lock(&mut waiter, "k").wait(wait).await.expect_err("no token");
    assert!(slow.is_transient() && !slow.is_busy(), "{slow:?}");
    // On a busy machine that call may have had no answer at all, so its connection is not reused.
    drop(waiter);
    let mut waiter = pool.begin().await.expect("a transaction");
    let waiting = tokio::spawn(async move {
        lock(&mut waiter, "k").await;
        waiter
    });
    Postgres::until_one_waits(&pool).await;
    raising.rollback().await.expect("a rollback");
    let _holder = waiting.await.expect("no panic");
    // The sequence is free again once the token is issued, before the transaction ends.
    committed(&pool, "another").await;
}

/// A process of the previous version uses the sequence's next number as its token.
pub async fn postgres_tokens_grow_beside_an_older_process() {
    let server = PostgresServer::start();
    let pool = postgres::pool(&server, 4).await;
    let old = "SELECT pg_advisory_xact_lock(1); \
        INSERT INTO dlock_rows (lock_key) VALUES ('k') \
        ON CONFLICT (lock_key) DO UPDATE SET lock_key = excluded.lock_key \
        RETURNING nextval('dlock_tokens')";
    let mut last = 0;
    for _ in 0..10 {
        let mut transaction = pool.begin().await.expect("a transaction");
        let token = Postgres::ask(&mut transaction, old).await.expect("its token").unsigned_abs();
        transaction.rollback().await.expect("a rollback");
        assert!(token > last, "the older process issued {token} after {last}");
        last = token;
        let token = committed(&pool, "k").await;
        assert!(token > last, "{token} follows {last} of the older process");
        last = token;
    }
}

async fn until_at_gate(pool: &Pool<MySql>, id: i64) {
    let question = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE id = {id} AND state = 'User lock'"
    );
    let polls = Polls::until("the connection waits at its gate");
    let mut connection = pool.acquire().await.expect("a connection");
    while MySql::ask(&mut connection, &question).await != Some(1) {
        polls.pause().await;
    }
}

pub async fn mysql_a_token_is_drawn_after_the_wait() {
    a_token_is_drawn_after_the_wait(MariaDbServer::start()).await;
}

/// With this setting, the insertion itself waits.
pub async fn mysql_a_token_is_drawn_after_the_wait_of_an_insertion() {
    let settings = [("innodb-rollback-on-timeout", "ON")];
    a_token_is_drawn_after_the_wait(MariaDbServer::start_with(&settings)).await;
}

/// Both transactions find no row and insert it. Only one succeeds, and the other waits for it.
async fn a_token_is_drawn_after_the_wait(server: MariaDbServer) {
    let pool = mysql::pool(&server, 8).await;
    let mut gates = pool.acquire().await.expect("a connection");
    // A gate between computing the new row and inserting it.
    let gate = "CREATE TRIGGER gate BEFORE INSERT ON dlock_rows FOR EACH ROW BEGIN \
        DO GET_LOCK(CONCAT('gate', CONNECTION_ID()), 60); \
        DO RELEASE_LOCK(CONCAT('gate', CONNECTION_ID())); END";
    MySql::ask(&mut gates, gate).await;
    let (mut early, mut late) = (MySql::begin(&pool).await, MySql::begin(&pool).await);
    let early_id = MySql::ask(&mut early, MySql::CONNECTION_ID).await.expect("its id");
    let late_id = MySql::ask(&mut late, MySql::CONNECTION_ID).await.expect("its id");
    for id in [early_id, late_id] {
        MySql::ask(&mut gates, &format!("SELECT GET_LOCK('gate{id}', 0)")).await;
    }
    let locked = tokio::spawn(async move {
        let token = lock(&mut early, "k").await.fencing_token();
        early.rollback().await.expect("a rollback");
        token
    });
    until_at_gate(&pool, early_id).await;
    let late = tokio::spawn(async move {
        let token = lock(&mut late, "k").await.fencing_token();
        (late, token)
    });
    until_at_gate(&pool, late_id).await;
    // The later one wins the row, and the earlier one waits for it.
    MySql::ask(&mut gates, &format!("SELECT RELEASE_LOCK('gate{late_id}')")).await;
    let (late, first) = late.await.expect("no panic");
    MySql::ask(&mut gates, &format!("SELECT RELEASE_LOCK('gate{early_id}')")).await;
    MySql::until_one_waits(&pool).await;
    late.rollback().await.expect("a rollback");
    let second = locked.await.expect("no panic");
    assert!(second > first, "{second} was granted after {first}");
}
