//! Clients that do not wait for their response.

use dlock_runtime::Wait;

use crate::http::send;
use crate::server::{Server, within_a_minute};

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_lock_behind() {
    let server = Server::start().await;
    let connection = send(server.address, "/purchase/7").await;
    server.gate.entered().await;
    drop(connection);
    let lock = server.others.lock("product:7").wait(Wait::Forever);
    let guard = within_a_minute(lock.acquire()).await.expect("the lock");
    guard.release().await.expect("held to the end");
}
