//! Each error as a client sees it.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Path;
use axum::routing::post;
use dlock_axum::{LockRejection, ScopeLayer};
use dlock_runtime::backend::Memory;
use dlock_runtime::testing::{Call, Intercepted};
use dlock_runtime::{LockError, Registry, distributed_lock};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::http::{self, Answer, receive, send};
use crate::server::{registry, within_a_minute};

static IN_LOSE: Notify = Notify::const_new();

#[distributed_lock(key = "product:<id>", ttl = "5s", wait = "0s")]
async fn purchase(Path(id): Path<String>) -> Result<String, LockRejection> {
    Ok(id)
}

#[distributed_lock(key = "hang", ttl = "5s", max_hold = "20ms")]
async fn hang() -> Result<(), LockRejection> {
    std::future::pending().await
}

#[distributed_lock(key = "lose", ttl = "300ms")]
async fn lose() -> Result<(), LockRejection> {
    IN_LOSE.notify_one();
    std::future::pending().await
}

#[distributed_lock(key = "nest", ttl = "5s")]
async fn nest() -> Result<(), LockRejection> {
    #[distributed_lock(key = "nest", ttl = "5s", wait = "0s", reentrant = false)]
    async fn again() -> Result<(), LockError> {
        Ok(())
    }
    Ok(again().await?)
}

#[distributed_lock(key = "elsewhere", ttl = "5s", backend = "secret-backend")]
async fn elsewhere() -> Result<(), LockRejection> {
    Ok(())
}

/// Serves the handlers above, without a shutdown.
async fn serve(locks: &Registry) -> SocketAddr {
    let app = Router::new()
        .route("/purchase/{id}", post(purchase))
        .route("/hang", post(hang))
        .route("/lose", post(lose))
        .route("/nest", post(nest))
        .route("/elsewhere", post(elsewhere))
        .layer(ScopeLayer::new(locks));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn ask(server: SocketAddr, path: &str) -> Answer {
    within_a_minute(http::post(server, path)).await
}

/// Checks status, `Retry-After` and the type of the problem.
fn check(answer: &Answer, status: u16, retry_after: Option<&str>, kind: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("retry-after"), retry_after, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().is_some_and(|known| known.ends_with(kind)), "{problem}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    for private in ["product", "secret", "memory", "intercepted"] {
        assert!(!answer.body.contains(private), "{private}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_busy_lock_is_423() {
    let locks = registry(Memory::new());
    let server = serve(&locks).await;
    let held = locks.lock("product:7").acquire().await.expect("free");
    check(&ask(server, "/purchase/7").await, 423, Some("1"), "#busy");
    held.release().await.expect("held");
    assert_eq!(ask(server, "/purchase/7").await.status, 200);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_503() {
    let store = Intercepted::new(Memory::new());
    let server = serve(&registry(store.clone())).await;
    store.fail(Call::Acquire);
    check(&ask(server, "/purchase/7").await, 503, Some("5"), "#unavailable");
}

#[tokio::test]
async fn a_process_that_shuts_down_is_503() {
    let locks = registry(Memory::new());
    let server = serve(&locks).await;
    locks.shutdown(std::time::Duration::ZERO).await.expect("nothing is held");
    check(&ask(server, "/purchase/7").await, 503, Some("1"), "#shutting-down");
}

#[tokio::test]
async fn a_body_beyond_its_max_hold_is_504() {
    let server = serve(&registry(Memory::new())).await;
    check(&ask(server, "/hang").await, 504, None, "#too-long");
}

#[tokio::test]
async fn an_invalid_key_is_400() {
    let server = serve(&registry(Memory::new())).await;
    let path = format!("/purchase/{}", "7".repeat(600));
    check(&ask(server, &path).await, 400, None, "#invalid-key");
}

#[tokio::test]
async fn a_lost_lock_is_500() {
    let locks = registry(Memory::new());
    let server = serve(&locks).await;
    let connection = send(server, "/lose").await;
    within_a_minute(IN_LOSE.notified()).await;
    locks.lock("lose").force_release().await.expect("the store answers");
    check(&within_a_minute(receive(connection)).await, 500, None, "#lost");
}

#[tokio::test]
async fn a_task_that_waits_for_itself_is_500() {
    let server = serve(&registry(Memory::new())).await;
    check(&ask(server, "/nest").await, 500, None, "about:blank");
}

#[tokio::test]
async fn a_mistake_of_the_service_is_500_and_tells_nothing() {
    let server = serve(&registry(Memory::new())).await;
    check(&ask(server, "/elsewhere").await, 500, None, "about:blank");
}
