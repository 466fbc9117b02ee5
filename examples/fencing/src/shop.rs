//! The shop, with the annotated function.

use std::str::FromStr;

use anyhow::Result;
use dlock_runtime::{FencingToken, distributed_lock, fencing};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

/// One product in a table.
pub struct Shop {
    pub file: String,
    /// Whether writes are fenced.
    pub fenced: bool,
    products: SqlitePool,
}

/// Sells one item of the product and returns how many are left.
///
/// `on_lost = "finish"` lets the body continue after its lease is lost. It stands for code that
/// spawns a task, calls a blocking library, or has already sent its write.
#[distributed_lock(key = "product:7", ttl = "1s", on_lost = "finish", guard = lock)]
pub async fn sell(shop: &Shop, between: &mut impl AsyncFnMut() -> Result<()>) -> Result<i64> {
    let left = shop.stock().await? - 1;
    between().await?;
    shop.write(left, lock.fencing_token()).await?;
    Ok(left)
}

impl Shop {
    pub async fn open(file: &str, fenced: bool) -> Result<Self> {
        let options = SqliteConnectOptions::from_str(&format!("sqlite:{file}"))?;
        let products = SqlitePool::connect_with(options.create_if_missing(true)).await?;
        let shop = Self { file: file.to_owned(), fenced, products };
        // The fence is a column of the protected row itself.
        let table = "CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, stock INTEGER, fencing_token BIGINT);
                     INSERT OR IGNORE INTO products VALUES (7, 5, NULL)";
        sqlx::raw_sql(table).execute(&shop.products).await?;
        Ok(shop)
    }

    pub async fn stock(&self) -> Result<i64> {
        let stock = "SELECT stock FROM products WHERE id = 7";
        Ok(sqlx::query_scalar(stock).fetch_one(&self.products).await?)
    }

    async fn write(&self, stock: i64, token: FencingToken) -> Result<()> {
        let mut connection = self.products.acquire().await?;
        if self.fenced {
            let update = fencing::update(&mut *connection, "products", token);
            update.set("stock", stock).filter("id", 7).execute().await?;
        } else {
            let update = sqlx::query("UPDATE products SET stock = ? WHERE id = 7").bind(stock);
            update.execute(&mut *connection).await?;
        }
        Ok(())
    }
}
