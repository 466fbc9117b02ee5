//! The service as it is deployed: several processes, which a signal ends.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dlock_runtime::Registry;
use rustix::process::{Pid, Signal, kill_process};

/// A process of the service. It is killed if the test fails.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_example-web-service"));
        command.env("LOCKS", locks_in(folder)).env("STOCK", folder);
        command.env("LISTEN", "127.0.0.1:0").stdout(Stdio::piped());
        let mut child = command.spawn().expect("the service");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, address }
    }

    /// Sends a request for this product; the response will arrive on the connection.
    fn buy(&self, product: u64) -> TcpStream {
        let mut connection = TcpStream::connect(&self.address).expect("a connection");
        connection.set_read_timeout(Some(Duration::from_mins(1))).expect("a socket");
        let head = format!("POST /products/{product}/purchase HTTP/1.1\r\nhost: shop\r\n");
        write!(connection, "{head}connection: close\r\n\r\n").expect("the request");
        connection
    }

    /// Sends SIGTERM and waits until the process has ended.
    fn terminate(mut self) {
        let id = Pid::from_child(&self.child);
        kill_process(id, Signal::TERM).expect("it runs");
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child") {
                assert!(status.success(), "{status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it has not ended a minute after the signal");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn locks_in(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("locks.db").display())
}

fn status(mut connection: TcpStream) -> String {
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("a response");
    answer.split(' ').nth(1).expect("a status").to_owned()
}

#[test]
fn two_processes_sell_the_last_item_once() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(folder.path().join("7"), "1").expect("the stock");
    let processes = [Process::start(folder.path()), Process::start(folder.path())];
    let requests = processes.each_ref().map(|process| process.buy(7));
    let mut statuses = requests.map(status);
    statuses.sort();
    assert_eq!(statuses, ["200", "409"]);
    let left = std::fs::read_to_string(folder.path().join("7")).expect("the stock");
    assert_eq!(left, "0");
    processes.into_iter().for_each(Process::terminate);
}

#[tokio::test]
async fn a_purchase_is_completed_after_sigterm() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(folder.path().join("7"), "1").expect("the stock");
    let process = Process::start(folder.path());
    let request = process.buy(7);
    begun(folder.path()).await;
    process.terminate();
    assert_eq!(status(request), "200");
}

/// Returns when the purchase holds its lock, as an operator sees it, or when it is done: the machine may be slow.
async fn begun(folder: &Path) {
    let store = dlock_runtime::connect(&locks_in(folder)).await.expect("the service's store");
    let locks = Registry::builder().backend("locks", store).build().expect("one backend");
    let held = async || !locks.inspect("product:7").await.expect("the store answers").is_empty();
    let sold = || std::fs::read_to_string(folder.join("7")).is_ok_and(|left| left == "0");
    let begun = async { while !held().await && !sold() {} };
    tokio::time::timeout(Duration::from_mins(1), begun).await.expect("no purchase in a minute");
}
