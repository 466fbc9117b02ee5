//! Two signals of the operating system. They are for the whole process, so this is one test.
#![cfg(unix)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use dlock_axum::{LockRejection, shutdown_signal};
use dlock_runtime::backend::Memory;
use dlock_runtime::{DrainLimits, Registry};
use rustix::process::{Signal, getpid, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Longer than the test takes.
const FOREVER: Duration = Duration::from_hours(1);

/// A handler that hangs under its lock.
fn app(locks: Registry, entered: Arc<Notify>) -> Router {
    let hang = async move || -> Result<(), LockRejection> {
        let body = async {
            entered.notify_one();
            std::future::pending::<()>().await;
        };
        Ok(locks.lock("report").run(body).await?)
    };
    Router::new().route("/", get(hang))
}

#[tokio::test]
async fn the_first_signal_waits_for_a_body_and_the_second_stops_it() {
    let locks = Registry::builder().backend("memory", Memory::new()).build().expect("one backend");
    let entered = Arc::new(Notify::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = dlock_axum::serve(listener, app(locks.clone(), Arc::clone(&entered)), &locks)
        .drain_limits(DrainLimits::new(FOREVER))
        .within(FOREVER)
        .force_on(shutdown_signal())
        .until(shutdown_signal());
    let serving = tokio::spawn(server);

    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await.expect("the request");
    let test = async {
        entered.notified().await;
        terminate();
        // From here on the shutdown is under way, and the second signal is listened to.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let early = tokio::time::timeout(Duration::from_millis(100), client.read_u8()).await;
        assert!(early.is_err(), "the first signal has stopped the body");
        terminate();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("a response");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        serving.await.expect("no panic").expect("nothing is left");
    };
    tokio::time::timeout(Duration::from_mins(1), test).await.expect("no end within a minute");
}

fn terminate() {
    kill_process(getpid(), Signal::TERM).expect("a signal to this process");
}
