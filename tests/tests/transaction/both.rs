//! What row locks guarantee on both databases.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dlock_runtime::transaction::{self, RowLock, RowLockDatabase};
use dlock_runtime::{FencingToken, LockError, Mode, Wait};
use sqlx::{AssertSqlSafe, MySql, Pool, Postgres, Row, Transaction};

use crate::facts::Polls;

/// What the tests need from both databases.
pub trait Rows: RowLockDatabase {
    const CONNECTION_ID: &'static str;
    /// How many connections wait for a lock.
    const WAITING: &'static str;
    /// The statement that kills this connection.
    fn end_of(connection: i64) -> String;

    fn begin(pool: &Pool<Self>) -> impl Future<Output = Transaction<'static, Self>> + Send;
    /// Runs statements, and returns the first number of the last row.
    fn ask(
        connection: &mut Self::Connection,
        statements: &str,
    ) -> impl Future<Output = Option<i64>> + Send;

    fn waiting(pool: &Pool<Self>) -> impl Future<Output = i64> + Send;

    /// Polls until a connection waits for a lock.
    fn until_one_waits(pool: &Pool<Self>) -> impl Future<Output = ()> + Send {
        async {
            let polls = Polls::until("a connection waits for a lock");
            while Self::waiting(pool).await == 0 {
                polls.pause().await;
            }
        }
    }
}

macro_rules! rows {
    ($database:ty, $connection_id:literal, $waiting:literal, $before:literal, $behind:literal) => {
        impl Rows for $database {
            const CONNECTION_ID: &'static str = $connection_id;
            const WAITING: &'static str = $waiting;

            /// The statement that kills this connection.
            fn end_of(connection: i64) -> String {
                format!("{}{connection}{}", $before, $behind)
            }

            async fn begin(pool: &Pool<Self>) -> Transaction<'static, Self> {
                pool.begin().await.expect("a transaction")
            }

            async fn ask(connection: &mut Self::Connection, statements: &str) -> Option<i64> {
                let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
                let rows = statements.fetch_all(connection).await.expect("the statements");
                rows.last().map(|row| row.try_get_unchecked(0).expect("a number"))
            }

            async fn waiting(pool: &Pool<Self>) -> i64 {
                let mut connection = pool.acquire().await.expect("a connection");
                Self::ask(&mut connection, Self::WAITING).await.expect("a number")
            }
        }
    };
}

rows!(
    Postgres,
    "SELECT pg_backend_pid()::bigint",
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
    "SELECT pg_terminate_backend(",
    ")::int::bigint"
);
rows!(
    MySql,
    "SELECT CAST(CONNECTION_ID() AS SIGNED)",
    "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'",
    "KILL CONNECTION ",
    ""
);

pub async fn lock<DB: Rows>(transaction: &mut Transaction<'_, DB>, key: &str) -> RowLock {
    transaction::lock(transaction, key).wait(Duration::from_secs(20)).await.expect("the lock")
}

pub async fn is_busy<DB: Rows>(pool: &Pool<DB>, key: &str) -> bool {
    let mut transaction = DB::begin(pool).await;
    match transaction::lock(&mut transaction, key).wait(Duration::ZERO).await {
        Ok(_) => false,
        Err(LockError::Busy { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

pub async fn a_transaction_excludes_another_until_it_commits<DB: Rows>(pool: &Pool<DB>) {
    let mut one = DB::begin(pool).await;
    let first = lock(&mut one, "k").await;
    assert_eq!(first.key().as_str(), "k");
    assert!(is_busy(pool, "k").await);
    assert!(!is_busy(pool, "another").await);
    assert!(!is_busy(pool, "K").await, "keys are case-sensitive");
    assert!(!is_busy(pool, "k ").await, "a trailing blank is part of the key");
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut other = DB::begin(&pool).await;
            let second = lock(&mut other, "k").await;
            other.commit().await.expect("a commit");
            second
        }
    });
    one.commit().await.expect("a commit");
    let second = waiting.await.expect("no panic");
    assert!(second.fencing_token() > first.fencing_token());
    assert!(!is_busy(pool, "k").await);
}

pub async fn a_rollback_releases_the_lock<DB: Rows>(pool: &Pool<DB>) {
    let mut one = DB::begin(pool).await;
    let first = lock(&mut one, "k").await;
    one.rollback().await.expect("a rollback");
    let mut dropped = DB::begin(pool).await;
    let second = lock(&mut dropped, "k").await;
    drop(dropped);
    let mut other = DB::begin(pool).await;
    let third = lock(&mut other, "k").await;
    assert!(second.fencing_token() > first.fencing_token());
    assert!(third.fencing_token() > second.fencing_token());
}

pub async fn a_lost_connection_releases_the_lock<DB: Rows>(pool: &Pool<DB>) {
    let mut one = DB::begin(pool).await;
    let connection = DB::ask(&mut one, DB::CONNECTION_ID).await.expect("its id");
    let first = lock(&mut one, "k").await;
    let mut other = DB::begin(pool).await;
    DB::ask(&mut other, &DB::end_of(connection)).await;
    let second = lock(&mut other, "k").await;
    assert!(second.fencing_token() > first.fencing_token());
    one.commit().await.expect_err("the connection is gone");
}

pub async fn tokens_grow_with_every_lock<DB: Rows>(pool: &Pool<DB>) {
    let last = Arc::new(Mutex::new(FencingToken::new(0)));
    let tasks = (0..8).map(|_| {
        let (pool, last) = (pool.clone(), Arc::clone(&last));
        tokio::spawn(async move {
            for _ in 0..10 {
                let mut transaction = DB::begin(&pool).await;
                let token = lock(&mut transaction, "k").await.fencing_token();
                let before = std::mem::replace(&mut *last.lock().expect("no panic"), token);
                assert!(token > before, "{token} follows {before}");
                transaction.commit().await.expect("a commit");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
}

/// On MySQL the key has no row until a transaction commits.
pub async fn tokens_grow_with_every_rollback<DB: Rows>(pool: &Pool<DB>) {
    let last = Arc::new(Mutex::new(FencingToken::new(0)));
    let tasks = (0..8).map(|_| {
        let (pool, last) = (pool.clone(), Arc::clone(&last));
        tokio::spawn(async move {
            for _ in 0..20 {
                let mut transaction = DB::begin(&pool).await;
                let token = lock(&mut transaction, "k").await.fencing_token();
                let before = std::mem::replace(&mut *last.lock().expect("no panic"), token);
                assert!(token > before, "{token} follows {before}");
                transaction.rollback().await.expect("a rollback");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
}

pub async fn a_transaction_may_lock_twice<DB: Rows>(pool: &Pool<DB>) {
    let mut one = DB::begin(pool).await;
    let first = lock(&mut one, "k").await;
    let again = lock(&mut one, "k").await;
    assert!(again.fencing_token() > first.fencing_token());
    assert!(is_busy(pool, "k").await);
    one.commit().await.expect("a commit");
    assert!(!is_busy(pool, "k").await);
}

pub async fn no_update_is_lost<DB: Rows>(pool: &Pool<DB>) {
    let mut setup = DB::begin(pool).await;
    DB::ask(&mut setup, "CREATE TABLE counter (n bigint)").await;
    DB::ask(&mut setup, "INSERT INTO counter VALUES (0)").await;
    setup.commit().await.expect("a commit");
    let tasks = (0..8).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                let mut transaction = DB::begin(&pool).await;
                lock(&mut transaction, "counter").await;
                let read = DB::ask(&mut transaction, "SELECT n FROM counter").await.expect("it");
                let write = format!("UPDATE counter SET n = {}", read + 1);
                DB::ask(&mut transaction, &write).await;
                transaction.commit().await.expect("a commit");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    let mut after = DB::begin(pool).await;
    assert_eq!(DB::ask(&mut after, "SELECT n FROM counter").await, Some(80));
}

/// How late a wait may end.
const TOLERANCE: Duration = Duration::from_millis(50);

/// The shortest time of a few attempts that end busy: on a busy machine a single one may be late.
pub async fn busy_after<DB: Rows>(pool: &Pool<DB>, wait: Duration) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut transaction = DB::begin(pool).await;
        let began = Instant::now();
        let error = transaction::lock(&mut transaction, "k").wait(wait).await.expect_err("busy");
        let took = began.elapsed();
        let LockError::Busy { waited, .. } = &error else { panic!("{error}") };
        assert!(took >= wait && *waited >= wait, "gave up after {took:?} of {wait:?}");
        best = best.min(took);
        if best <= wait + TOLERANCE {
            break;
        }
    }
    best
}

pub async fn a_wait_ends_in_time<DB: Rows>(pool: &Pool<DB>) {
    let mut holder = DB::begin(pool).await;
    lock(&mut holder, "k").await;
    for wait in [0, 70, 300, 1_250].map(Duration::from_millis) {
        let took = busy_after(pool, wait).await;
        assert!(took <= wait + TOLERANCE, "a wait of {wait:?} took {took:?}");
    }
}

/// Each holder holds for less than the wait. Only their sum exceeds it.
pub async fn a_wait_among_many_holders_ends_in_time<DB: Rows>(pool: &Pool<DB>) {
    let until = Instant::now() + Duration::from_secs(8);
    let holders: Vec<_> = (0..6)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                while Instant::now() < until {
                    let mut transaction = DB::begin(&pool).await;
                    lock(&mut transaction, "k").await;
                    tokio::time::sleep(Duration::from_millis(150)).await;
                    transaction.commit().await.expect("a commit");
                }
            })
        })
        .collect();
    while !is_busy(pool, "k").await {}
    let wait = Duration::from_millis(400);
    let mut best = Duration::MAX;
    while Instant::now() + wait < until && best > wait + TOLERANCE {
        let mut transaction = DB::begin(pool).await;
        let began = Instant::now();
        let locked = transaction::lock(&mut transaction, "k").wait(wait).await;
        best = best.min(began.elapsed());
        drop(transaction);
        assert!(locked.as_ref().err().is_none_or(LockError::is_busy), "{locked:?}");
    }
    assert!(best <= wait + TOLERANCE, "a wait of {wait:?} took {best:?}");
    for holder in holders {
        holder.await.expect("no panic");
    }
}

pub async fn several_keys_in_any_order_do_not_deadlock<DB: Rows>(pool: &Pool<DB>) {
    let transfer = async |pool: Pool<DB>, from: &'static str, to: &'static str| {
        for _ in 0..20 {
            let mut transaction = DB::begin(&pool).await;
            let locks = transaction::lock_all(&mut transaction, [from, to, from]).await;
            let locks = locks.expect("no deadlock");
            let keys: Vec<_> = locks.holds().iter().map(|lock| lock.key().as_str()).collect();
            assert_eq!(keys, ["a", "b"]);
            transaction.commit().await.expect("a commit");
        }
    };
    tokio::join!(transfer(pool.clone(), "a", "b"), transfer(pool.clone(), "b", "a"));
}

pub async fn a_deadlock_is_a_transient_error<DB: Rows>(pool: &Pool<DB>) {
    let (mut one, mut other) = (DB::begin(pool).await, DB::begin(pool).await);
    lock(&mut one, "a").await;
    lock(&mut other, "b").await;
    // The victim rolls back its transaction, as the error says, so that the other can continue.
    let cross = async |mut transaction: Transaction<'static, DB>, key: &'static str| {
        let locked = transaction::lock(&mut transaction, key).wait(Wait::Forever).await;
        transaction.rollback().await.expect("a rollback");
        locked
    };
    let (one, other) = tokio::join!(cross(one, "b"), cross(other, "a"));
    let victims: Vec<_> = [one, other].into_iter().filter_map(Result::err).collect();
    assert_eq!(victims.len(), 1, "{victims:?}");
    assert!(victims[0].is_transient() && !victims[0].is_busy(), "{victims:?}");
    let message = dlock_tests::in_full(&victims[0]);
    assert!(message.contains("deadlock") && message.contains("begin"), "{message}");
}

pub async fn a_connection_without_a_transaction_is_refused<DB: Rows>(pool: &Pool<DB>) {
    let mut connection = pool.acquire().await.expect("a connection");
    let refused = transaction::lock(&mut *connection, "k").await.expect_err("no transaction");
    assert!(matches!(refused, LockError::Transaction { .. }), "{refused:?}");
    assert!(refused.to_string().contains("begin"), "{refused}");
    assert!(!is_busy(pool, "k").await);
}

pub async fn a_begin_that_sqlx_did_not_see_is_refused<DB: Rows>(pool: &Pool<DB>) {
    let mut connection = pool.acquire().await.expect("a connection");
    DB::ask(&mut connection, "BEGIN").await;
    let refused = transaction::lock(&mut *connection, "k").await.expect_err("no transaction");
    assert!(matches!(refused, LockError::Transaction { .. }), "{refused:?}");
    DB::ask(&mut connection, "ROLLBACK").await;
}

pub async fn an_invalid_key_is_refused_before_anything_is_sent<DB: Rows>(pool: &Pool<DB>) {
    let mut transaction = DB::begin(pool).await;
    for key in [String::new(), "k".repeat(513)] {
        let refused = transaction::lock(&mut transaction, key).await.expect_err("no key");
        assert!(matches!(refused, LockError::InvalidKey { .. }), "{refused:?}");
    }
    // Any characters that a key may contain work on every database.
    for key in
        ["'; DROP TABLE dlock_rows; --", "a\0b", r"a\0b", "k\u{1F512}", &"\u{e9}".repeat(256)]
    {
        assert_eq!(lock(&mut transaction, key).await.key().as_str(), key);
        assert!(is_busy(pool, key).await);
    }
}

pub async fn a_call_is_two_round_trips<DB: Rows>(pool: &Pool<DB>) {
    let mut transaction = DB::begin(pool).await;
    let locking = transaction::lock(&mut transaction, "k").into_future();
    let (locked, sent) = crate::sent::counted(locking).await;
    locked.expect("the lock");
    assert_eq!(sent, 2);
}

async fn read<DB: Rows>(transaction: &mut Transaction<'_, DB>, key: &str) -> RowLock {
    let lock = transaction::lock(transaction, key).mode(Mode::Shared);
    lock.wait(Duration::from_secs(20)).await.expect("the lock")
}

pub async fn readers_share_and_exclude_a_writer<DB: Rows>(pool: &Pool<DB>) {
    // On MySQL the very first lock creates the row.
    let mut writer = DB::begin(pool).await;
    let written = lock(&mut writer, "k").await;
    let mut early = DB::begin(pool).await;
    let answer = transaction::lock(&mut early, "k").mode(Mode::Shared).wait(Duration::ZERO).await;
    assert!(answer.is_err_and(|error| error.is_busy()), "a reader beside a writer");
    early.rollback().await.expect("a rollback");
    writer.commit().await.expect("a commit");

    let (mut one, mut other) = (DB::begin(pool).await, DB::begin(pool).await);
    let (first, second) = (read(&mut one, "k").await, read(&mut other, "k").await);
    for reader in [&first, &second] {
        assert!(reader.fencing_token() > written.fencing_token(), "{reader:?} after {written:?}");
    }
    assert!(is_busy(pool, "k").await, "a writer beside two readers");
    one.commit().await.expect("a commit");
    assert!(is_busy(pool, "k").await, "a writer beside a reader");
    other.commit().await.expect("a commit");
    let mut writer = DB::begin(pool).await;
    let next = lock(&mut writer, "k").await;
    for reader in [first, second] {
        assert!(next.fencing_token() > reader.fencing_token(), "{next:?} after {reader:?}");
    }
}

/// A rollback does not undo what the writer did outside of the database under its token.
pub async fn a_readers_token_exceeds_that_of_a_rolled_back_writer<DB: Rows>(pool: &Pool<DB>) {
    let mut writer = DB::begin(pool).await;
    lock(&mut writer, "k").await;
    writer.commit().await.expect("a commit");
    for _ in 0..3 {
        let mut writer = DB::begin(pool).await;
        let written = lock(&mut writer, "k").await.fencing_token();
        writer.rollback().await.expect("a rollback");
        let mut reader = DB::begin(pool).await;
        let token = read(&mut reader, "k").await.fencing_token();
        reader.commit().await.expect("a commit");
        assert!(token > written, "the reader's {token} follows the writer's {written}");
        let mut writer = DB::begin(pool).await;
        let next = lock(&mut writer, "k").await.fencing_token();
        writer.rollback().await.expect("a rollback");
        assert!(next > token, "the writer's {next} follows the reader's {token}");
    }
}

/// Otherwise a stream of later readers would starve a waiting writer.
pub async fn a_waiting_writer_precedes_later_readers<DB: Rows>(pool: &Pool<DB>) {
    let mut writer = DB::begin(pool).await;
    lock(&mut writer, "k").await;
    writer.commit().await.expect("a commit");
    let mut reader = DB::begin(pool).await;
    read(&mut reader, "k").await;
    let writer_pool = pool.clone();
    let writing = tokio::spawn(async move {
        let mut writer = DB::begin(&writer_pool).await;
        lock(&mut writer, "k").await;
        writer.commit().await.expect("a commit");
    });
    // Once the writer waits, a reader with no wait is refused.
    let began = Instant::now();
    loop {
        let mut late = DB::begin(pool).await;
        let late = transaction::lock(&mut late, "k").mode(Mode::Shared).wait(Duration::ZERO).await;
        if late.is_err() {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "later readers overtake a waiting writer"
        );
    }
    assert!(!writing.is_finished());
    reader.commit().await.expect("a commit");
    writing.await.expect("the lock");
}
