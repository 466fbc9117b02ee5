//! What several programs share: a shop's database, with one product in it.

use std::error::Error;
use std::time::Duration;

use dlock_runtime::FencingToken;
use dlock_runtime::sim::{self, Process, Remote};

pub type Failed = Box<dyn Error + Send + Sync>;

/// The row of a product.
#[derive(Debug)]
pub struct Product {
    pub left: u32,
    pub sold: u32,
    /// The newest token that has read or written the row.
    newest: Option<FencingToken>,
}

/// A later holder of the lock has been here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a later holder of the lock has been here")]
pub struct Stale;

impl Product {
    pub const fn with(left: u32) -> Self {
        Self { left, sold: 0, newest: None }
    }

    /// Sells one: `UPDATE products SET left = $1, sold = sold + 1`.
    pub const fn sell(&mut self, left: u32) {
        self.left = left;
        self.sold += 1;
    }

    /// Takes one back that was sold.
    pub const fn take_back(&mut self, left: u32) {
        self.left = left;
        self.sold -= 1;
    }

    /// Refuses an older token than the newest.
    pub fn fence(&mut self, token: FencingToken) -> Result<(), Stale> {
        if self.newest > Some(token) {
            return Err(Stale);
        }
        self.newest = Some(token);
        Ok(())
    }
}

pub type Database = Remote<Product>;

/// A shop with five pieces of one product.
pub fn open() -> Database {
    Remote::new("database", Product::with(5))
}

/// Reads how many are left, and presents a token.
pub async fn read(database: &Database, token: FencingToken) -> Result<u32, Failed> {
    let read = move |product: &mut Product| product.fence(token).map(|()| product.left);
    Ok(database.call(format!("read the stock with token {token}"), read).await??)
}

/// Sells one, and presents a token.
pub async fn sell(database: &Database, left: u32, token: FencingToken) -> Result<(), Failed> {
    let sell = move |product: &mut Product| product.fence(token).map(|()| product.sell(left));
    Ok(database.call(format!("write the stock with token {token}"), sell).await??)
}

/// Starts servers that use a database, and waits for what they do. One that is killed has no result.
pub async fn on_servers<T, Fut>(
    count: usize,
    database: &Remote<T>,
    serve: impl Fn(Remote<T>, usize) -> Fut,
) -> Vec<Fut::Output>
where
    Fut: Future<Output: Send> + Send + 'static,
{
    let start = |number| {
        let serving = serve(database.clone(), number);
        sim::process(format!("server {number}"), move || serving)
    };
    let servers: Vec<Process<_>> = (0..count).map(start).collect();
    let mut results = Vec::new();
    for server in servers {
        results.extend(server.await);
    }
    // What is still on its way arrives.
    sim::calm();
    sim::sleep(Duration::from_secs(3)).await;
    results
}

/// What the owner of every shop expects.
pub fn check(database: &Database) {
    database.peek(|product| {
        assert_eq!(product.left + product.sold, 5, "the stock does not add up: {product:?}");
    });
}
