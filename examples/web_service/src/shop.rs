//! The stock, and the handler that sells it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Json, Router};
use dlock_runtime::distributed_lock;
use serde::Serialize;

use crate::error::ShopError;

pub(crate) fn app(shop: Shop) -> Router {
    Router::new().route("/products/{id}/purchase", post(purchase)).with_state(shop)
}

#[derive(Serialize)]
struct Receipt {
    product: u64,
    price: u32,
    left: u32,
}

#[distributed_lock(key = "product:<id>", ttl = "5s", wait = "2s", max_hold = "10s")]
async fn purchase(
    State(shop): State<Shop>,
    Path(id): Path<u64>,
) -> Result<Json<Receipt>, ShopError> {
    let left = shop.left(id)?.checked_sub(1).ok_or(ShopError::SoldOut)?;
    let price = price_of(id).await;
    shop.set_left(id, left)?;
    Ok(Json(Receipt { product: id, price, left }))
}

/// Asks another service. Here, it only takes as long.
async fn price_of(_id: u64) -> u32 {
    tokio::time::sleep(Duration::from_millis(100)).await;
    199
}

/// A folder with one file per product: how many items are left. It is what all processes of the service share.
#[derive(Clone)]
pub(crate) struct Shop(Arc<PathBuf>);

impl Shop {
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self(Arc::new(folder.into()))
    }

    fn left(&self, id: u64) -> io::Result<u32> {
        let text = fs::read_to_string(self.0.join(id.to_string()))?;
        text.trim().parse().map_err(io::Error::other)
    }

    pub(crate) fn set_left(&self, id: u64, left: u32) -> io::Result<()> {
        fs::write(self.0.join(id.to_string()), left.to_string())
    }
}
