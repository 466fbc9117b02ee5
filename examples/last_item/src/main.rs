//! A row lock in a transaction: lock the product's row, sell, commit.
//!
//! ```text
//! cargo run --release -p example-last-item -- --database postgres://user:password@127.0.0.1/shop
//! ```
//!
//! Many customers buy the last few items at once. Each purchase reads the stock and sells in one
//! transaction, which its caller commits together with other work. Without a lock, two transactions
//! see the same last item. With a lock that ends before the commit they do too, so dlock does not
//! compile that. With a lock in the transaction itself, the next purchase sees what was committed.
//!
//! The example creates a table `dlock_example_products` and drops it at the end. For MySQL the code
//! is the same with `MySql` instead of `Postgres`, on connections that use READ COMMITTED.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use dlock_runtime::{LockError, distributed_lock, transaction};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Postgres, Transaction};
use tokio::task::JoinSet;

/// Sells the last items with and without a row lock.
#[derive(Debug, Parser)]
struct Options {
    /// A database in which the example can create tables:
    /// postgres://user:password@host:port/database
    #[arg(long, value_name = "URL")]
    database: String,
    /// Items in stock
    #[arg(long, default_value_t = 10)]
    stock: i64,
    /// Concurrent customers
    #[arg(long, default_value_t = 40)]
    customers: i64,
}

/// Why a purchase failed.
#[derive(Debug, thiserror::Error)]
enum ShopError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Sells one item if any is left.
#[distributed_lock(key = "product:<id>", wait = "30s", transaction = tx)]
async fn purchase(tx: &mut Transaction<'_, Postgres>, id: i64) -> Result<bool, ShopError> {
    sell(tx, id).await
}

/// The same without the lock.
async fn purchase_unlocked(tx: &mut Transaction<'_, Postgres>, id: i64) -> Result<bool, ShopError> {
    sell(tx, id).await
}

async fn sell(tx: &mut Transaction<'_, Postgres>, id: i64) -> Result<bool, ShopError> {
    let left = "SELECT stock FROM dlock_example_products WHERE id = $1";
    let left: i64 = sqlx::query_scalar(left).bind(id).fetch_one(&mut **tx).await?;
    if left <= 0 {
        return Ok(false);
    }
    let sale = "UPDATE dlock_example_products SET stock = stock - 1 WHERE id = $1";
    sqlx::query(sale).bind(id).execute(&mut **tx).await?;
    Ok(true)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("last_item: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns true if the run with the lock sold exactly the stock.
async fn run(options: &Options) -> Result<bool> {
    let pool = PgPoolOptions::new().max_connections(8).acquire_timeout(Duration::from_secs(10));
    let pool = pool.connect(&options.database).await.context("no connection")?;
    // Once, at startup: the table of row locks.
    transaction::create_tables(&pool).await?;
    let unlocked = sale(&pool, options, false).await?;
    println!("without a lock             sold {unlocked} of {}", options.stock);
    let locked = sale(&pool, options, true).await?;
    println!("locked in the transaction  sold {locked} of {}", options.stock);
    Ok(locked == options.stock.min(options.customers))
}

async fn sale(pool: &PgPool, options: &Options, locked: bool) -> Result<i64> {
    let table = "DROP TABLE IF EXISTS dlock_example_products;
                 CREATE TABLE dlock_example_products (id BIGINT PRIMARY KEY, stock BIGINT)";
    sqlx::raw_sql(table).execute(pool).await?;
    let product = "INSERT INTO dlock_example_products VALUES (7, $1)";
    sqlx::query(product).bind(options.stock).execute(pool).await?;
    let mut customers = JoinSet::new();
    for _ in 0..options.customers {
        let pool = pool.clone();
        customers.spawn(async move { buy(&pool, locked).await });
    }
    let mut sold = 0;
    while let Some(bought) = customers.join_next().await {
        sold += i64::from(bought??);
    }
    sqlx::query("DROP TABLE dlock_example_products").execute(pool).await?;
    Ok(sold)
}

/// Handles a customer's request. The purchase is part of its transaction.
async fn buy(pool: &PgPool, locked: bool) -> Result<bool, ShopError> {
    let mut tx = pool.begin().await?;
    let bought =
        if locked { purchase(&mut tx, 7).await? } else { purchase_unlocked(&mut tx, 7).await? };
    // Other work in the same transaction: the receipt, the invoice, the parcel.
    tokio::time::sleep(Duration::from_millis(5)).await;
    tx.commit().await?;
    Ok(bought)
}
