//! Hung servers and abandoned calls: every call returns in time, and nothing is left waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dlock_runtime::transaction;
use dlock_runtime::{LockError, Wait};
use dlock_tests::proxy::Proxy;
use dlock_tests::servers::{Kind, MariaDbServer, PostgresServer, Server};
use sqlx::{MySql, Pool, Postgres, Transaction};

use crate::both::{Rows, is_busy, lock};
use crate::facts::Polls;
use crate::{mysql, postgres, sent};

const WAIT: Duration = Duration::from_secs(2);

/// A call promises to return within a second after its wait. The rest allows for a busy machine.
const IN_TIME: Duration = Duration::from_secs(4);

/// A call that takes longer has hung.
const NEVER: Duration = Duration::from_secs(30);

/// An abandoned call must be cleaned up within this time.
const SOON: Duration = Duration::from_secs(20);

/// A wait longer than any test.
const LONG: Duration = Duration::from_hours(1);

fn assert_reported(locked: Result<(), LockError>) {
    let error = locked.expect_err("the server cannot have answered");
    assert!(error.is_transient() && !error.is_busy(), "{error:?}");
    let message = dlock_tests::in_full(&error);
    for part in ["did not answer", "roll"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[derive(PartialEq)]
enum Freeze {
    BeforeTheCall,
    DuringTheWait,
}

/// `waiters` is a pool of one connection.
async fn a_frozen_server_is_reported<DB: Rows, K: Kind>(
    server: &mut Server<K>,
    waiters: Pool<DB>,
    holders: Pool<DB>,
    freeze: Freeze,
) where
    for<'c> Transaction<'c, DB>: Send,
{
    let mut holder = DB::begin(&holders).await;
    lock(&mut holder, "k").await;
    let mut waiter = DB::begin(&waiters).await;
    if freeze == Freeze::BeforeTheCall {
        server.pause();
    }
    let began = Instant::now();
    let waiting = tokio::spawn(async move {
        let locked = transaction::lock(&mut waiter, "k").wait(WAIT).await.map(|_| ());
        (waiter, locked, began.elapsed())
    });
    if freeze == Freeze::DuringTheWait {
        DB::until_one_waits(&holders).await;
        server.pause();
    }
    let answered = tokio::time::timeout(NEVER, waiting).await;
    server.resume();
    let (waiter, locked, took) = answered.expect("an answer").expect("no panic");
    assert_reported(locked);
    assert!(took < IN_TIME, "a wait of {WAIT:?} took {took:?}");

    // The pool has one connection. It must be usable, or have been replaced.
    drop(waiter);
    let mut next = DB::begin(&waiters).await;
    assert_eq!(DB::ask(&mut next, "SELECT 42").await, Some(42));
    let busy = transaction::lock(&mut next, "k").wait(Duration::ZERO).await;
    assert!(busy.as_ref().is_err_and(LockError::is_busy), "{busy:?}");
    holder.rollback().await.expect("a rollback");
    lock(&mut next, "k").await;
    next.commit().await.expect("a commit");
    assert!(!is_busy(&holders, "k").await);
}

async fn postgres_frozen(freeze: Freeze) {
    let mut server = PostgresServer::start();
    let holders = postgres::pool(&server, 3).await;
    let waiters = postgres::pool(&server, 1).await;
    a_frozen_server_is_reported::<Postgres, _>(&mut server, waiters, holders, freeze).await;
}

async fn mysql_frozen(freeze: Freeze) {
    let mut server = MariaDbServer::start();
    let holders = mysql::pool(&server, 3).await;
    let waiters = mysql::pool(&server, 1).await;
    a_frozen_server_is_reported::<MySql, _>(&mut server, waiters, holders, freeze).await;
}

pub async fn postgres_a_server_that_freezes_during_the_wait_is_reported() {
    postgres_frozen(Freeze::DuringTheWait).await;
}

pub async fn postgres_a_frozen_server_is_reported() {
    postgres_frozen(Freeze::BeforeTheCall).await;
}

pub async fn mysql_a_server_that_freezes_during_the_wait_is_reported() {
    mysql_frozen(Freeze::DuringTheWait).await;
}

pub async fn mysql_a_frozen_server_is_reported() {
    mysql_frozen(Freeze::BeforeTheCall).await;
}

/// The future is dropped while the server executes its statement, with and without a limit on the wait.
async fn an_abandoned_call_frees_its_connection<DB: Rows>(waiters: Pool<DB>, holders: Pool<DB>)
where
    for<'c> Transaction<'c, DB>: Send,
{
    let mut holder = DB::begin(&holders).await;
    lock(&mut holder, "k").await;
    for wait in [Wait::Forever, Wait::UpTo(LONG)] {
        let mut waiter = DB::begin(&waiters).await;
        let waiting = tokio::spawn(async move {
            let _ = transaction::lock(&mut waiter, "k").wait(wait).await;
        });
        DB::until_one_waits(&holders).await;
        waiting.abort();
        let next = tokio::time::timeout(SOON, DB::begin(&waiters)).await;
        let mut next = next.expect("the connection is free again or replaced");
        assert_eq!(DB::ask(&mut next, "SELECT 42").await, Some(42));
        assert_eq!(DB::waiting(&holders).await, 0);
    }
    holder.rollback().await.expect("a rollback");
    assert!(!is_busy(&holders, "k").await);
}

pub async fn postgres_an_abandoned_call_frees_its_connection() {
    let server = PostgresServer::start();
    let (waiters, holders) = (postgres::pool(&server, 1).await, postgres::pool(&server, 3).await);
    an_abandoned_call_frees_its_connection::<Postgres>(waiters, holders).await;
}

pub async fn mysql_an_abandoned_call_frees_its_connection() {
    let server = MariaDbServer::start();
    let (waiters, holders) = (mysql::pool(&server, 1).await, mysql::pool(&server, 3).await);
    an_abandoned_call_frees_its_connection::<MySql>(waiters, holders).await;
}

/// The client's connection closes, as if its process had died.
async fn a_client_that_vanishes_leaves_no_statement<DB: Rows>(
    mut proxy: Proxy,
    waiters: Pool<DB>,
    holders: Pool<DB>,
) where
    for<'c> Transaction<'c, DB>: Send,
{
    let mut holder = DB::begin(&holders).await;
    lock(&mut holder, "k").await;
    let mut waiter = DB::begin(&waiters).await;
    let waiting =
        tokio::spawn(
            async move { transaction::lock(&mut waiter, "k").wait(LONG).await.map(|_| ()) },
        );
    DB::until_one_waits(&holders).await;
    proxy.cut().await;
    waiting.await.expect("no panic").expect_err("the connection is gone");
    let began = Instant::now();
    let polls = Polls::until("nothing waits any more");
    while DB::waiting(&holders).await > 0 {
        polls.pause().await;
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    holder.rollback().await.expect("a rollback");
    assert!(!is_busy(&holders, "k").await);
}

pub async fn postgres_a_client_that_vanishes_leaves_no_statement() {
    let server = PostgresServer::start();
    let proxy = Proxy::start(server.port()).await;
    let url = server.url().replace(&server.port().to_string(), &proxy.port().to_string());
    let holders = postgres::pool(&server, 3).await;
    let waiters = postgres::bare_pool(&url, 1).await;
    a_client_that_vanishes_leaves_no_statement::<Postgres>(proxy, waiters, holders).await;
}

pub async fn mysql_a_client_that_vanishes_leaves_no_statement() {
    let server = MariaDbServer::start();
    let proxy = Proxy::start(server.port()).await;
    let url = server.url().replace(&server.port().to_string(), &proxy.port().to_string());
    let holders = mysql::pool(&server, 3).await;
    let waiters = mysql::bare_pool(&url, 1).await;
    a_client_that_vanishes_leaves_no_statement::<MySql>(proxy, waiters, holders).await;
}

/// The database is slow to grant a lock that nobody holds.
async fn a_slow_server_is_not_a_busy_lock<DB: Rows>(pool: &Pool<DB>) {
    for wait in [Duration::ZERO, Duration::from_millis(300)] {
        let mut transaction = DB::begin(pool).await;
        let began = Instant::now();
        let error = transaction::lock(&mut transaction, "k").wait(wait).await.expect_err("slow");
        assert!(error.is_transient() && !error.is_busy(), "{error:?}");
        assert!(began.elapsed() < IN_TIME, "a wait of {wait:?} took {:?}", began.elapsed());
    }
}

pub async fn postgres_a_slow_server_is_not_a_busy_lock() {
    let server = PostgresServer::start();
    let pool = postgres::pool(&server, 2).await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN PERFORM pg_sleep(5); RETURN NEW; END'; \
        CREATE TRIGGER slow BEFORE INSERT ON dlock_rows FOR EACH ROW EXECUTE FUNCTION slow()";
    Postgres::ask(&mut pool.acquire().await.expect("a connection"), slow).await;
    a_slow_server_is_not_a_busy_lock(&pool).await;
}

pub async fn mysql_a_slow_server_is_not_a_busy_lock() {
    let server = MariaDbServer::start();
    let pool = mysql::pool(&server, 2).await;
    let slow = "CREATE TRIGGER slow BEFORE INSERT ON dlock_rows FOR EACH ROW DO SLEEP(5)";
    MySql::ask(&mut pool.acquire().await.expect("a connection"), slow).await;
    a_slow_server_is_not_a_busy_lock(&pool).await;
}

/// The lock is busy, and the server hangs before it rolls back to the savepoint. If this were reported as busy,
/// the caller would continue with an aborted transaction.
pub async fn postgres_a_server_that_hangs_after_a_busy_lock_is_reported() {
    let server = PostgresServer::start();
    let proxy = Proxy::start(server.port()).await;
    let url = server.url().replace(&server.port().to_string(), &proxy.port().to_string());
    let holders = postgres::pool(&server, 3).await;
    let waiters = postgres::bare_pool(&url, 1).await;
    let mut holder = holders.begin().await.expect("a transaction");
    lock(&mut holder, "k").await;
    let mut waiter = waiters.begin().await.expect("a transaction");
    let proxy = Arc::new(proxy);
    let stalled = Arc::clone(&proxy);
    let wait = Duration::from_millis(300);
    let began = Instant::now();
    let locking = transaction::lock(&mut waiter, "k").wait(wait).into_future();
    // The call reads the settings, locks, and rolls back to its savepoint.
    let locking = sent::after(2, move || stalled.stall(), locking);
    let locked = tokio::time::timeout(NEVER, locking).await.expect("an answer");
    assert!(began.elapsed() < IN_TIME, "a wait of {wait:?} took {:?}", began.elapsed());
    assert_reported(locked.map(|_| ()));
    proxy.resume();
    drop(waiter);
    let mut next = waiters.begin().await.expect("a transaction");
    assert_eq!(Postgres::ask(&mut next, "SELECT 42").await, Some(42));
}

/// The server grants the lock, but its answer never arrives. The connection's next statement runs after that.
pub async fn postgres_an_unreported_grant_ends_with_its_transaction() {
    let server = PostgresServer::start();
    let proxy = Proxy::start(server.port()).await;
    let url = server.url().replace(&server.port().to_string(), &proxy.port().to_string());
    an_unreported_grant_ends_with_its_transaction::<Postgres>(
        proxy,
        postgres::bare_pool(&url, 1).await,
        postgres::pool(&server, 3).await,
    )
    .await;
}

pub async fn mysql_an_unreported_grant_ends_with_its_transaction() {
    let server = MariaDbServer::start();
    let proxy = Proxy::start(server.port()).await;
    let url = server.url().replace(&server.port().to_string(), &proxy.port().to_string());
    an_unreported_grant_ends_with_its_transaction::<MySql>(
        proxy,
        mysql::bare_pool(&url, 1).await,
        mysql::pool(&server, 3).await,
    )
    .await;
}

async fn an_unreported_grant_ends_with_its_transaction<DB: Rows>(
    proxy: Proxy,
    waiters: Pool<DB>,
    others: Pool<DB>,
) where
    for<'c> Transaction<'c, DB>: Send,
{
    let proxy = Arc::new(proxy);
    let mut waiter = DB::begin(&waiters).await;
    let stalled = Arc::clone(&proxy);
    let locking = transaction::lock(&mut waiter, "k").wait(Duration::ZERO).into_future();
    let locked = sent::after(1, move || stalled.stall_answers(), locking).await;
    assert_reported(locked.map(|_| ()));
    let polls = Polls::until("the server has granted it");
    while !is_busy(&others, "k").await {
        polls.pause().await;
    }
    proxy.resume();
    drop(waiter);
    let mut next = DB::begin(&waiters).await;
    assert_eq!(DB::ask(&mut next, "SELECT 42").await, Some(42));
    assert!(!is_busy(&others, "k").await, "it is still locked");
    lock(&mut next, "k").await;
    next.commit().await.expect("a commit");
}
