//! The end of a server whose requests hold locks.

use std::time::Duration;

use dlock_axum::ServeError;
use dlock_runtime::backend::Memory;
use dlock_runtime::testing::{Call, Intercepted};
use dlock_runtime::{DrainLimits, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{receive, send};
use crate::server::{FOREVER, Server, within_a_minute};

/// Short enough to wait for in a test.
const SHORT: Duration = Duration::from_millis(50);

/// Can another process acquire the lock without waiting?
async fn is_free(others: &Registry) -> bool {
    others.lock("product:7").wait(Duration::ZERO).acquire().await.is_ok()
}

#[tokio::test]
async fn a_request_that_holds_a_lock_finishes() {
    let server = Server::start().await;
    let others = server.others.clone();
    let connection = send(server.address, "/purchase/7").await;
    server.gate.entered().await;

    server.signal.cancel();
    server.refuses().await;
    assert!(!is_free(&others).await, "it was released before its body had ended");
    server.gate.open();

    let answer = within_a_minute(receive(connection)).await;
    assert_eq!((answer.status, &*answer.body), (200, "sold product 7"));
    assert!(is_free(&others).await);
    server.ended().await.expect("in order");
}

#[tokio::test]
async fn a_request_that_asks_for_its_lock_after_the_signal_gets_503() {
    let server = Server::start().await;
    let connection = send(server.address, "/prepare/7").await;
    server.gate.entered().await;
    server.signal.cancel();
    server.refuses().await;
    server.gate.open();
    assert_eq!(within_a_minute(receive(connection)).await.status, 503);
    server.ended().await.expect("in order");
}

#[tokio::test]
async fn a_request_that_waits_for_its_lock_gets_503_at_the_signal() {
    let store = Intercepted::new(Memory::new());
    let server = Server::on(store.clone(), DrainLimits::new(FOREVER), FOREVER).await;
    let held = server.others.lock("product:7").acquire().await.expect("free");
    let waiting = send(server.address, "/wait-for/7").await;
    within_a_minute(store.reached(Call::Acquire, 2)).await;
    server.signal.cancel();
    assert_eq!(within_a_minute(receive(waiting)).await.status, 503);
    server.ended().await.expect("in order");
    held.release().await.expect("held to the end");
}

#[tokio::test]
async fn a_body_beyond_its_grace_is_stopped_with_503() {
    let server = Server::with_limits(DrainLimits::new(SHORT), FOREVER).await;
    let others = server.others.clone();
    let connection = send(server.address, "/purchase/7").await;
    server.gate.entered().await;
    server.signal.cancel();
    let answer = within_a_minute(receive(connection)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, None), "{answer:?}");
    assert!(answer.body.contains("#stopped"), "{answer:?}");
    server.ended().await.expect("in order");
    assert!(is_free(&others).await);
}

#[tokio::test]
async fn a_request_without_a_lock_finishes_too() {
    let server = Server::start().await;
    let connection = send(server.address, "/think").await;
    server.gate.entered().await;
    server.signal.cancel();
    server.refuses().await;
    server.gate.open();
    assert_eq!(within_a_minute(receive(connection)).await.body, "done");
    server.ended().await.expect("in order");
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_it_up() {
    let server = Server::start().await;
    let mut idle = TcpStream::connect(server.address).await.expect("a connection");
    idle.write_all(b"POST /wait-for/7 HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\n\r\n")
        .await
        .expect("the request");
    let mut start = [0; 12];
    within_a_minute(idle.read_exact(&mut start)).await.expect("a response");
    assert_eq!(&start, b"HTTP/1.1 200");
    server.signal.cancel();
    server.ended().await.expect("in order");
}

#[tokio::test]
async fn a_handler_that_hangs_does_not_keep_the_process() {
    let server = Server::with_limits(DrainLimits::new(FOREVER), SHORT).await;
    let _connection = send(server.address, "/think").await;
    server.gate.entered().await;
    server.signal.cancel();
    let ended = server.ended().await;
    assert!(matches!(ended, Err(ServeError::Connections)), "{ended:?}");
}

#[tokio::test]
async fn half_a_request_does_not_keep_the_process() {
    let server = Server::with_limits(DrainLimits::new(FOREVER), SHORT).await;
    let mut slow = TcpStream::connect(server.address).await.expect("a connection");
    slow.write_all(b"POST /think HT").await.expect("half a request");
    // A later connection is accepted later: the server has seen the first one.
    let other = send(server.address, "/wait-for/7").await;
    assert_eq!(within_a_minute(receive(other)).await.status, 200);
    server.signal.cancel();
    let ended = server.ended().await;
    assert!(matches!(ended, Err(ServeError::Connections)), "{ended:?}");
}

#[tokio::test]
async fn a_lock_is_stopped_and_released_when_the_whole_time_is_up() {
    let server = Server::with_limits(DrainLimits::new(FOREVER).without_stopping(), SHORT).await;
    let others = server.others.clone();
    let connection = send(server.address, "/purchase/7").await;
    server.gate.entered().await;
    server.signal.cancel();
    assert_eq!(within_a_minute(receive(connection)).await.status, 503);
    server.ended().await.expect("the connection was closed after its response");
    assert!(is_free(&others).await);
}

#[tokio::test]
async fn a_second_signal_stops_the_bodies_at_once() {
    let server = Server::start().await;
    let others = server.others.clone();
    let connection = send(server.address, "/purchase/7").await;
    server.gate.entered().await;
    server.signal.cancel();
    server.refuses().await;
    server.second_signal.cancel();
    assert_eq!(within_a_minute(receive(connection)).await.status, 503);
    server.ended().await.expect("the connection was closed after its response");
    assert!(is_free(&others).await);
}

#[tokio::test]
async fn a_second_signal_before_the_first_changes_nothing() {
    let server = Server::start().await;
    server.second_signal.cancel();
    let connection = send(server.address, "/purchase/7").await;
    server.gate.entered().await;
    server.gate.open();
    assert_eq!(within_a_minute(receive(connection)).await.status, 200);
    server.signal.cancel();
    server.ended().await.expect("in order");
}

#[tokio::test]
async fn a_lock_that_cannot_be_released_is_reported() {
    let store = Intercepted::new(Memory::new());
    let limits = DrainLimits::new(SHORT).release_within(SHORT);
    let server = Server::on(store.clone(), limits, FOREVER).await;
    let connection = send(server.address, "/purchase/7").await;
    server.gate.entered().await;
    store.delay(Call::Release);
    server.signal.cancel();
    assert_eq!(within_a_minute(receive(connection)).await.status, 503);
    match server.ended().await {
        Err(ServeError::Locks(left)) => assert_eq!(left.left, 1),
        ended => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn a_server_whose_future_is_dropped_stops_listening() {
    let server = Server::start().await;
    let connection = send(server.address, "/purchase/7").await;
    server.gate.entered().await;
    server.serving.abort();
    server.refuses().await;
    server.gate.open();
    let answer = within_a_minute(receive(connection)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    let other = server.locks.lock("product:8").acquire().await;
    assert!(other.is_ok(), "nobody has shut the registry down: {other:?}");
}
