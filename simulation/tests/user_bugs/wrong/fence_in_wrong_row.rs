//! The newest token is kept with the order, which is new each time, and not with the stock that it protects.

use std::collections::BTreeMap;

use dlock_runtime::sim::Remote;
use dlock_runtime::{FencingToken, distributed_lock};

use crate::user_bugs::shop::{self, Failed, Product, Stale};

struct Tables {
    product: Product,
    tokens_of_orders: BTreeMap<usize, FencingToken>,
}

impl Tables {
    fn place(&mut self, order: usize, left: u32, token: FencingToken) -> Result<(), Stale> {
        let newest = self.tokens_of_orders.entry(order).or_insert(token);
        if *newest > token {
            return Err(Stale);
        }
        *newest = token;
        self.product.sell(left);
        Ok(())
    }
}

#[distributed_lock(key = "product:7", ttl = "1s", wait = "3s", backend = "redis", guard = lock)]
async fn purchase(database: &Remote<Tables>, order: usize) -> Result<(), Failed> {
    let token = lock.fencing_token();
    let left = database.call("read the stock", |tables| tables.product.left).await?;
    let place = move |tables: &mut Tables| tables.place(order, left - 1, token);
    database.call(format!("place order {order} with token {token}"), place).await??;
    Ok(())
}

pub async fn scenario() {
    let tables = Tables { product: Product::with(5), tokens_of_orders: BTreeMap::new() };
    let database = Remote::new("database", tables);
    let serve = |database, order| async move { purchase(&database, order).await.ok() };
    shop::on_servers(3, &database, serve).await;
    let (left, sold) = database.peek(|tables| (tables.product.left, tables.product.sold));
    assert_eq!(left + sold, 5, "the stock does not add up: {left} left, {sold} sold");
}
