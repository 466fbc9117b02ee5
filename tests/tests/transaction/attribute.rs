//! `transaction = tx`: every shape of function acquires the row lock in its caller's transaction, and
//! keeps it until that transaction ends.

use std::fmt::Display;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use async_trait::async_trait;
use dlock_runtime::{FencingToken, LockError, LockKey, Registry, distributed_lock};
use dlock_tests::servers::PostgresServer;
use futures_util::future::BoxFuture;
use sqlx::postgres::PgPoolOptions;
use sqlx::{MySql, PgTransaction, Pool, Postgres, Transaction};

use crate::both::{Rows, is_busy};

#[distributed_lock(key = "free:<id>", wait = "0s", transaction = tx)]
async fn free<DB: Rows>(id: u64, tx: &mut Transaction<'_, DB>) -> Result<u64, LockError> {
    let _ = DB::ask(tx, "SELECT 1").await;
    Ok(id)
}

#[distributed_lock(key = "unused:<id>", transaction = tx)]
async fn unused(id: u64, tx: &mut PgTransaction<'_>) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "owned:<id>", transaction = tx, guard = lock)]
async fn owned(
    id: impl Display + Send,
    mut tx: Transaction<'static, Postgres>,
) -> Result<FencingToken, LockError> {
    let token = lock.fencing_token();
    tx.commit().await.map_err(|_| LockError::NotInstalled)?;
    Ok(token)
}

#[distributed_lock(keys = ["b:<from>", "a:<to>", "b:<again>"], transaction = tx, guard = locks)]
async fn several(
    tx: &mut Transaction<'_, Postgres>,
    (from, to, again): (u8, u8, u8),
) -> Result<Vec<LockKey>, LockError> {
    Ok(locks.holds().iter().map(|lock| lock.key().clone()).collect())
}

#[distributed_lock(key = "read", mode = "shared", wait = "5s", transaction = tx)]
async fn reading(tx: &mut Transaction<'_, Postgres>) -> Result<(), LockError> {
    let _ = &tx;
    Ok(())
}

#[distributed_lock(key = "skip", wait = "0s", on_busy = "skip", transaction = tx)]
async fn skipping(tx: &mut Transaction<'_, Postgres>) -> Result<Option<u8>, LockError> {
    let _ = &tx;
    Ok(Some(1))
}

#[distributed_lock(keys = ["skip", "other"], wait = "0s", on_busy = "skip", transaction = tx)]
async fn skipping_all(tx: &mut Transaction<'_, Postgres>) -> Result<(), LockError> {
    unreachable!("the lock is busy");
}

/// A tuple, which cannot implement `From<LockError>`.
type Status = (u16, String);

#[allow(clippy::needless_pass_by_value, reason = "the attribute's own signature")]
fn unavailable(error: LockError) -> Status {
    (503, error.to_string())
}

#[distributed_lock(key = "mapped", wait = "0s", transaction = tx, map_err = unavailable)]
async fn mapped(tx: &mut Transaction<'_, Postgres>) -> Result<(), Status> {
    let _ = &tx;
    Ok(())
}

#[distributed_lock(key = "future", transaction = tx)]
fn future<'a>(
    tx: &'a mut Transaction<'static, Postgres>,
) -> impl Future<Output = Result<u8, LockError>> + Send + 'a {
    async move {
        Postgres::ask(tx, "SELECT 1").await;
        Ok(1)
    }
}

#[distributed_lock(key = "boxed", transaction = tx)]
fn boxed<'a>(tx: &'a mut Transaction<'static, Postgres>) -> BoxFuture<'a, Result<u8, LockError>> {
    Box::pin(async move {
        Postgres::ask(tx, "SELECT 1").await;
        Ok(1)
    })
}

struct Shop {
    name: &'static str,
    sold: u32,
}

impl Shop {
    #[distributed_lock(key = "<self.name>:method", transaction = tx)]
    async fn by_reference(&self, tx: &mut Transaction<'_, Postgres>) -> anyhow::Result<u32> {
        let _ = &tx;
        Ok(self.sold)
    }

    #[distributed_lock(key = "<self.name>:mut", transaction = tx)]
    async fn mutable(&mut self, tx: &mut Transaction<'_, Postgres>) -> anyhow::Result<u32> {
        let _ = &tx;
        self.sold += 1;
        Ok(self.sold)
    }

    #[distributed_lock(key = "<self.name>:self", transaction = tx)]
    async fn by_value(self, tx: &mut Transaction<'_, Postgres>) -> anyhow::Result<u32> {
        let _ = &tx;
        Ok(self.sold)
    }
}

trait Native {
    async fn native(&self, tx: &mut Transaction<'_, Postgres>) -> Result<(), LockError>;
}

impl Native for Shop {
    #[distributed_lock(key = "<self.name>:native", transaction = tx)]
    async fn native(&self, tx: &mut Transaction<'_, Postgres>) -> Result<(), LockError> {
        let _ = &tx;
        Ok(())
    }
}

#[async_trait]
trait Dynamic {
    async fn dynamic(&self, tx: &mut Transaction<'_, Postgres>) -> Result<u32, LockError>;
}

#[async_trait]
impl Dynamic for Shop {
    #[distributed_lock(key = "<self.name>:dynamic", transaction = tx)]
    async fn dynamic(&self, tx: &mut Transaction<'_, Postgres>) -> Result<u32, LockError> {
        Postgres::ask(tx, "SELECT 1").await;
        Ok(self.sold)
    }
}

#[distributed_lock(key = "traced", transaction = tx)]
#[tracing::instrument(skip_all)]
async fn traced(tx: &mut Transaction<'_, Postgres>) -> Result<(), LockError> {
    let _ = &tx;
    Ok(())
}

#[distributed_lock(key = "insisted", backend = "memory", unlock_before_commit = true)]
async fn insisted(tx: &mut Transaction<'_, MySql>) -> Result<(), LockError> {
    let _ = &tx;
    Ok(())
}

fn is_send<T: Send>(future: T) -> T {
    future
}

pub async fn it_locks_in_the_transaction<DB: Rows>(pool: &Pool<DB>)
where
    for<'c> Transaction<'c, DB>: Send,
{
    let mut tx = DB::begin(pool).await;
    assert_eq!(free(1, &mut tx).await.expect("free"), 1);
    assert!(is_busy(pool, "free:1").await, "the lock was released with the function");
    let mut other = DB::begin(pool).await;
    let busy = free(1, &mut other).await.expect_err("it is held");
    assert!(busy.is_busy(), "{busy}");
    assert_eq!(free(2, &mut other).await.expect("another row"), 2);
    tx.commit().await.expect("a commit");
    assert_eq!(free(1, &mut other).await.expect("released by the commit"), 1);
}

pub async fn every_shape_of_function_can_be_locked() {
    let server = PostgresServer::start();
    let pool = &crate::postgres::pool(&server, 8).await;
    let begin = async || pool.begin().await.expect("a transaction");
    let mut tx = begin().await;
    unused(1, &mut tx).await.expect("free");
    let keys = is_send(several(&mut tx, (1, 2, 1))).await.expect("free");
    assert_eq!(keys, ["a:2".into(), "b:1".into()]);
    assert_eq!(is_send(future(&mut tx)).await.expect("free"), 1);
    assert_eq!(is_send(boxed(&mut tx)).await.expect("free"), 1);
    let mut shop = Shop { name: "shop", sold: 1 };
    assert_eq!(shop.by_reference(&mut tx).await.expect("free"), 1);
    assert_eq!(shop.mutable(&mut tx).await.expect("free"), 2);
    shop.native(&mut tx).await.expect("free");
    assert_eq!(is_send(shop.dynamic(&mut tx)).await.expect("free"), 2);
    assert_eq!(shop.by_value(&mut tx).await.expect("free"), 2);
    traced(&mut tx).await.expect("free");
    let locked = [
        "unused:1",
        "a:2",
        "b:1",
        "future",
        "boxed",
        "shop:method",
        "shop:mut",
        "shop:native",
        "shop:dynamic",
        "shop:self",
        "traced",
    ];
    for key in locked {
        assert!(is_busy(pool, key).await, "{key} is not locked");
    }
    let mut reader = begin().await;
    reading(&mut reader).await.expect("free");
    reading(&mut tx).await.expect("readers share it");
    assert!(is_busy(pool, "read").await, "it is not locked for writers");
    drop(reader);
    tx.rollback().await.expect("a rollback");
    for key in locked {
        assert!(!is_busy(pool, key).await, "{key} is still locked");
    }
    let one = owned("x", begin().await).await.expect("free");
    assert!(!is_busy(pool, "owned:x").await, "its own commit did not release it");
    assert!(owned("x", begin().await).await.expect("free") > one);
}

pub async fn a_busy_lock_runs_no_body() {
    let server = PostgresServer::start();
    let pool = crate::postgres::pool(&server, 4).await;
    let mut holder = pool.begin().await.expect("a transaction");
    let mut tx = pool.begin().await.expect("a transaction");
    assert_eq!(skipping(&mut holder).await.expect("free"), Some(1));
    mapped(&mut holder).await.expect("free");
    assert_eq!(skipping(&mut tx).await.expect("skipped"), None);
    skipping_all(&mut tx).await.expect("skipped");
    let (status, message) = mapped(&mut tx).await.expect_err("busy");
    assert!(status == 503 && message.contains("busy"), "{message}");
}

/// Nothing is sent before the first poll; an unreachable server runs no body.
pub async fn it_is_lazy_and_fails_closed() {
    let server = PostgresServer::start();
    let pool = crate::postgres::pool(&server, 4).await;
    let mut tx = pool.begin().await.expect("a transaction");
    drop(unused(7, &mut tx));
    assert!(!is_busy(&pool, "unused:7").await);
    let mut polled = tx;
    {
        // Polled once, and then dropped.
        let mut call = pin!(unused(8, &mut polled));
        poll_fn(|cx| {
            let _ = call.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
    }
    drop(polled);
    while is_busy(&pool, "unused:8").await {}

    let mut tx = pool.begin().await.expect("a transaction");
    drop(server);
    free::<Postgres>(9, &mut tx).await.expect_err("the server is gone");
}

pub async fn the_future_stays_small() {
    #[distributed_lock(key = "outer", transaction = tx)]
    async fn outer(tx: &mut Transaction<'_, Postgres>) -> Result<u8, LockError> {
        middle(tx).await
    }
    #[distributed_lock(key = "middle", transaction = tx)]
    async fn middle(tx: &mut Transaction<'_, Postgres>) -> Result<u8, LockError> {
        inner(tx).await
    }
    #[distributed_lock(key = "inner", transaction = tx)]
    async fn inner(tx: &mut Transaction<'_, Postgres>) -> Result<u8, LockError> {
        let much = [1_u8; 1024];
        tokio::task::yield_now().await;
        let _ = &tx;
        Ok(much[1023])
    }
    let server = PostgresServer::start();
    let pool = PgPoolOptions::new().connect(&server.url()).await.expect("the server runs");
    let mut tx = pool.begin().await.expect("a transaction");
    let size = size_of_val(&outer(&mut tx));
    assert!(size < 2048, "{size} bytes for a body of 1 KiB, three deep");
}

/// Sites of row locks require no backend.
pub async fn sites_know_their_form() {
    let site = |function: &str| {
        let all = Registry::sites().into_iter();
        let mut found = all.filter(|site| site.function() == function);
        found.next().expect("a site of this name")
    };
    assert!(site("free").is_in_transaction() && site("several").is_in_transaction());
    assert!(!site("insisted").is_in_transaction());
    assert_eq!(site("free").backend_name(), None);
    // Only needs to compile.
    let _ = insisted;
}
