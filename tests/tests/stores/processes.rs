//! Separate processes on one store: what a single process cannot show about itself.

use std::path::Path;
use std::time::{Duration, Instant};

use dlock_runtime::{FencingToken, Registry, transaction};
use dlock_tests::servers::{MariaDbServer, PostgresServer, RedisServer, first_missing};
use dlock_tests::trials::Trials;
use dlock_tests::workers::Worker;

use super::steps;

/// Eight processes buy 40 items. Under a Redis lock that is released before the caller commits, some
/// of them read stale stock and oversell. With the row locked in the transaction itself, none does.
macro_rules! only_a_lock_in_the_transaction_sells_exactly {
    ($pool:expr, $shop:expr) => {{
        let (pool, shop) = ($pool, $shop);
        let redis = RedisServer::start();
        let locks = redis.url();
        for (locks, exactly) in [(Some(&*locks), false), (None, true)] {
            let tables =
                ["CREATE TABLE products (stock BIGINT)", "CREATE TABLE sales (stock BIGINT)"];
            for statement in tables.into_iter().chain(["INSERT INTO products VALUES (40)"]) {
                sqlx::query(statement).execute(&pool).await.expect("a table");
            }
            let order = Worker::buy(locks, &shop);
            let workers: Vec<_> = (0..8).map(|_| Worker::start(WORKER, &order)).collect();
            workers.into_iter().for_each(Worker::finish);
            let count = "SELECT COUNT(*) FROM sales";
            let sold: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.expect("a number");
            if exactly {
                assert_eq!(sold, 40);
            } else {
                assert!(sold > 40, "the broken version sold {sold} of 40: the test proves nothing");
            }
            sqlx::query("DROP TABLE products").execute(&pool).await.expect("a table");
            sqlx::query("DROP TABLE sales").execute(&pool).await.expect("a table");
        }
    }};
}

const WORKER: &str = env!("CARGO_BIN_EXE_worker");

pub(super) fn add(trials: &mut Trials) {
    trials.add("sqlite_no_update_is_lost", sqlite_no_update_is_lost);
    trials.add("sqlite_a_killed_holder_frees_its_key", sqlite_a_killed_holder_frees_its_key);
    trials.add("sqlite_a_paused_holder_loses_its_lock", sqlite_a_paused_holder_loses_its_lock);
    let redis = "redis-server";
    trials.needs(redis, "redis_no_update_is_lost", redis_no_update_is_lost);
    trials.needs(redis, "redis_a_killed_holder_frees_its_key", redis_a_killed_holder_frees_its_key);
    trials.needs(
        redis,
        "redis_a_paused_holder_loses_its_lock",
        redis_a_paused_holder_loses_its_lock,
    );
    trials.needs("postgres", "postgres_no_update_is_lost", postgres_no_update_is_lost);
    trials.needs("postgres", "postgres_a_killed_holder_frees_its_key", || async {
        a_killed_holder_frees_its_key(&PostgresServer::start().url()).await;
    });
    trials.needs("postgres", "postgres_a_paused_holder_loses_its_lock", || async {
        a_paused_holder_loses_its_lock(&PostgresServer::start().url()).await;
    });
    trials.needs("mariadbd", "mysql_no_update_is_lost", mysql_no_update_is_lost);
    trials.needs("mariadbd", "mysql_a_killed_holder_frees_its_key", || async {
        a_killed_holder_frees_its_key(&MariaDbServer::start().url()).await;
    });
    trials.needs("mariadbd", "mysql_a_paused_holder_loses_its_lock", || async {
        a_paused_holder_loses_its_lock(&MariaDbServer::start().url()).await;
    });
    let both = first_missing(&["postgres", "redis-server"]);
    trials.needs(both, "postgres_sells_the_stock_exactly", || async {
        let shop = PostgresServer::start();
        let pool = sqlx::PgPool::connect(&shop.url()).await.expect("the server runs");
        transaction::create_tables(&pool).await.expect("the table");
        only_a_lock_in_the_transaction_sells_exactly!(pool, shop.url());
    });
    let both = first_missing(&["mariadbd", "redis-server"]);
    trials.needs(both, "mysql_sells_the_stock_exactly", || async {
        let shop = MariaDbServer::start();
        let pool = sqlx::MySqlPool::connect(&shop.url()).await.expect("the server runs");
        transaction::create_tables(&pool).await.expect("the table");
        only_a_lock_in_the_transaction_sells_exactly!(pool, shop.url());
    });
}

async fn sqlite_no_update_is_lost() {
    let (_folder, url) = steps::sqlite_file();
    no_update_is_lost(&url);
}

async fn redis_no_update_is_lost() {
    let server = RedisServer::start();
    no_update_is_lost(&server.url());
}

async fn postgres_no_update_is_lost() {
    no_update_is_lost(&PostgresServer::start().url());
}

async fn mysql_no_update_is_lost() {
    no_update_is_lost(&MariaDbServer::start().url());
}

async fn sqlite_a_killed_holder_frees_its_key() {
    let (_folder, url) = steps::sqlite_file();
    a_killed_holder_frees_its_key(&url).await;
}

async fn redis_a_killed_holder_frees_its_key() {
    let server = RedisServer::start();
    a_killed_holder_frees_its_key(&server.url()).await;
}

async fn sqlite_a_paused_holder_loses_its_lock() {
    let (_folder, url) = steps::sqlite_file();
    a_paused_holder_loses_its_lock(&url).await;
}

async fn redis_a_paused_holder_loses_its_lock() {
    let server = RedisServer::start();
    a_paused_holder_loses_its_lock(&server.url()).await;
}

/// 4 processes × 4 tasks × 5 rounds increment a number in a file.
fn no_update_is_lost(url: &str) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let all = 4 * 4 * 5;
    let locked = counted(url, &folder.path().join("locked"), true);
    assert_eq!(locked, all, "updates were lost under the lock");
    let unlocked = counted(url, &folder.path().join("unlocked"), false);
    assert!(unlocked < all, "the run without the lock lost nothing: the test proves nothing");
}

fn counted(url: &str, file: &Path, locked: bool) -> u64 {
    std::fs::write(file, "0").expect("a temporary file");
    let file = file.to_str().expect("a plain path");
    let order = Worker::count(url, "counter", file, 4, 5, locked);
    let workers: Vec<_> = (0..4).map(|_| Worker::start(WORKER, &order)).collect();
    workers.into_iter().for_each(Worker::finish);
    std::fs::read_to_string(file).expect("the counter").trim().parse().expect("a number")
}

async fn registry(url: &str) -> Registry {
    steps::registry(dlock_runtime::connect(url).await.expect("a store"))
}

fn token_of(line: &str) -> FencingToken {
    let number = line.strip_prefix("held ").and_then(|number| number.parse().ok());
    FencingToken::new(number.unwrap_or_else(|| panic!("not `held <token>`: {line}")))
}

async fn a_killed_holder_frees_its_key(url: &str) {
    let ttl = Duration::from_secs(2);
    let registry = registry(url).await;
    let mut worker = Worker::start(WORKER, &Worker::hold(url, "k", 2_000));
    let stale = token_of(&worker.says());
    let killed = Instant::now();
    worker.kill();
    let guard = steps::acquire(&registry, "k").await;
    let took = killed.elapsed();
    // Not a benchmark: the extra second allows for a busy machine.
    assert!(took < ttl + Duration::from_secs(1), "free only {took:?} after the holder was killed");
    assert!(guard.fencing_token() > stale, "{} follows {stale}", guard.fencing_token());
    guard.release().await.expect("held to the end");
}

async fn a_paused_holder_loses_its_lock(url: &str) {
    let registry = registry(url).await;
    let mut worker = Worker::start(WORKER, &Worker::hold(url, "k", 1_000));
    let stale = token_of(&worker.says());
    worker.pause();
    let guard = steps::acquire(&registry, "k").await;
    let fresh = guard.fencing_token();
    worker.resume();
    assert_eq!(worker.says(), "lost");
    worker.finish();
    // A fenced resource that has seen the fresh token refuses the stale one.
    assert!(stale < fresh, "{fresh} follows {stale}");
    guard.release().await.expect("the resumed holder did not reacquire it");
}
