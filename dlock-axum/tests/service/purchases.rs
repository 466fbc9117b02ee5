//! A handler under the attribute.

use crate::http::{post, receive, send};
use crate::server::{Server, within_a_minute};

#[tokio::test]
async fn of_two_requests_for_one_product_one_is_refused() {
    let server = Server::start().await;
    let first = send(server.address, "/purchase/7").await;
    server.gate.entered().await;
    let second = within_a_minute(post(server.address, "/purchase/7")).await;
    assert_eq!(second.status, 423, "{second:?}");
    server.gate.open();
    let first = within_a_minute(receive(first)).await;
    assert_eq!((first.status, &*first.body), (200, "sold product 7"));
}

#[tokio::test]
async fn requests_for_two_products_do_not_wait_for_each_other() {
    let server = Server::start().await;
    let first = send(server.address, "/purchase/7").await;
    server.gate.entered().await;
    let second = send(server.address, "/purchase/8").await;
    server.gate.entered().await;
    server.gate.open();
    server.gate.open();
    for connection in [first, second] {
        assert_eq!(within_a_minute(receive(connection)).await.status, 200);
    }
}
