//! Buys the last items. The purchase is part of a transaction that its caller commits.

use std::time::Duration;

use dlock_runtime::{Registry, distributed_lock};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, MySql, Pool, Postgres, Row, Transaction};

use crate::Failure;

/// The time between the purchase and the commit, as if the caller did other work.
const AFTERWARDS: Duration = Duration::from_millis(3);

/// A database of the shop.
pub trait Database: dlock_runtime::transaction::RowLockDatabase {
    fn begin(
        pool: &Pool<Self>,
    ) -> impl Future<Output = Result<Transaction<'static, Self>, Failure>> + Send;
    /// The stock, or `None` if nothing is left.
    fn stock(
        tx: &mut Self::Connection,
    ) -> impl Future<Output = Result<Option<i64>, Failure>> + Send;
    fn write(
        tx: &mut Self::Connection,
        stock: i64,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

macro_rules! database {
    ($database:ty) => {
        impl Database for $database {
            async fn begin(pool: &Pool<Self>) -> Result<Transaction<'static, Self>, Failure> {
                Ok(pool.begin().await?)
            }

            async fn stock(tx: &mut Self::Connection) -> Result<Option<i64>, Failure> {
                let row = sqlx::query("SELECT stock FROM products").fetch_one(tx).await?;
                Ok(Some(row.try_get(0)?).filter(|stock| *stock > 0))
            }

            async fn write(tx: &mut Self::Connection, stock: i64) -> Result<(), Failure> {
                // Both in one message: the remaining stock as the buyer saw it, and the sale.
                let write = format!(
                    "UPDATE products SET stock = {stock}; INSERT INTO sales VALUES ({stock})"
                );
                sqlx::raw_sql(AssertSqlSafe(write)).execute(tx).await?;
                Ok(())
            }
        }
    };
}

database!(Postgres);
database!(MySql);

/// The classic mistake, requested explicitly: the lock is released before the caller commits.
#[distributed_lock(key = "product", backend = "redis", wait = "1m", unlock_before_commit = true)]
async fn buy_too_early<DB: Database>(tx: &mut Transaction<'_, DB>) -> Result<bool, Failure> {
    buy_one::<DB>(tx).await
}

#[distributed_lock(key = "product", wait = "1m", transaction = tx)]
async fn buy_in_the_transaction<DB: Database>(
    tx: &mut Transaction<'_, DB>,
) -> Result<bool, Failure> {
    buy_one::<DB>(tx).await
}

async fn buy_one<DB: Database>(tx: &mut DB::Connection) -> Result<bool, Failure> {
    let Some(stock) = DB::stock(tx).await? else { return Ok(false) };
    DB::write(tx, stock - 1).await?;
    Ok(true)
}

/// Buys until nothing is left.
pub async fn buy(locks: Option<&str>, shop: &str) -> Result<(), Failure> {
    let registry = match locks {
        Some(url) => {
            let redis = dlock_runtime::connect(url).await?;
            Some(Registry::builder().backend("redis", redis).build()?)
        }
        None => None,
    };
    if shop.starts_with("postgres") {
        let pool = PgPoolOptions::new().connect(shop).await?;
        buy_all(&pool, registry).await
    } else {
        let pool = MySqlPoolOptions::new().after_connect(|connection, _| {
            Box::pin(async move {
                let set = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
                sqlx::Executor::execute(connection, set).await.map(|_| ())
            })
        });
        buy_all(&pool.connect(shop).await?, registry).await
    }
}

async fn buy_all<DB: Database>(pool: &Pool<DB>, registry: Option<Registry>) -> Result<(), Failure> {
    loop {
        let mut tx = DB::begin(pool).await?;
        let bought = match &registry {
            Some(registry) => registry.scope(buy_too_early(&mut tx)).await?,
            None => buy_in_the_transaction(&mut tx).await?,
        };
        tokio::time::sleep(AFTERWARDS).await;
        tx.commit().await?;
        if !bought {
            return Ok(());
        }
    }
}
