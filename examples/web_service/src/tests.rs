//! The router with a registry of its own, without a port and without a store.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use dlock_axum::ScopeLayer;
use dlock_runtime::Registry;
use dlock_runtime::backend::Memory;
use tower::ServiceExt as _;

use crate::shop::{Shop, app};

async fn buy(app: &Router) -> StatusCode {
    let request = Request::post("/products/7/purchase").body(Body::empty()).expect("a request");
    app.clone().oneshot(request).await.expect("a router never fails").status()
}

#[tokio::test]
async fn the_last_item_is_sold_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let shop = Shop::new(folder.path());
    shop.set_left(7, 1)?;

    let locks = Registry::builder().backend("locks", Memory::new()).build()?;
    let app = app(shop).layer(ScopeLayer::new(&locks));
    let (first, second) = tokio::join!(buy(&app), buy(&app));
    assert_eq!([first, second], [StatusCode::OK, StatusCode::CONFLICT]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_product_that_somebody_else_locks_is_423() -> anyhow::Result<()> {
    let locks = Registry::builder().backend("locks", Memory::new()).build()?;
    let app = app(Shop::new("nowhere")).layer(ScopeLayer::new(&locks));

    let held = locks.lock("product:7").acquire().await?;
    assert_eq!(buy(&app).await, StatusCode::LOCKED);
    held.release().await?;
    assert_eq!(buy(&app).await, StatusCode::NOT_FOUND);
    Ok(())
}
