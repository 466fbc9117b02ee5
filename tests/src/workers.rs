//! Worker processes: what `src/bin/worker.rs` does when a test asks it to, and the test's end of it.
//!
//! A worker takes one JSON object as its argument and speaks in lines on its standard output.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::servers::signal_child;

/// A worker process; killed when dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts the program with this order.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(program: &str, order: &Value) -> Self {
        let mut child = Command::new(program)
            .arg(order.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the worker program");
        let stdout = child.stdout.take().expect("a pipe was asked for");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    /// An order to hold a key until the body is stopped, or for ever.
    #[must_use]
    pub fn hold(url: &str, key: &str, ttl_ms: u64) -> Value {
        json!({ "do": "hold", "url": url, "key": key, "ttl_ms": ttl_ms })
    }

    /// The same as a reader, among those that share the key.
    #[must_use]
    pub fn share(url: &str, key: &str, ttl_ms: u64) -> Value {
        json!({ "do": "share", "url": url, "key": key, "ttl_ms": ttl_ms })
    }

    /// The same with one of so many permits.
    #[must_use]
    pub fn count_in(url: &str, key: &str, ttl_ms: u64, permits: u32) -> Value {
        json!({ "do": "count_in", "url": url, "key": key, "ttl_ms": ttl_ms, "permits": permits })
    }

    /// The same when it is its turn; says when it stands in line.
    #[must_use]
    pub fn queue_up(url: &str, key: &str, ttl_ms: u64) -> Value {
        json!({ "do": "queue_up", "url": url, "key": key, "ttl_ms": ttl_ms })
    }

    /// An order to increment a file's number, tasks × rounds times, with the lock or without.
    #[must_use]
    pub fn count(url: &str, key: &str, file: &str, tasks: u64, rounds: u64, locked: bool) -> Value {
        json!({ "do": "count", "url": url, "key": key, "file": file, "tasks": tasks, "rounds": rounds, "locked": locked })
    }

    /// An order to buy until nothing is left: under a lock in Redis around the purchase, or with a row
    /// locked in the purchase's own transaction, which the worker commits in either case.
    #[must_use]
    pub fn buy(locks: Option<&str>, shop: &str) -> Value {
        json!({ "do": "buy", "locks": locks, "shop": shop })
    }

    /// The next line it says.
    ///
    /// # Panics
    /// When it ends without one.
    pub fn says(&mut self) -> String {
        self.lines.next().expect("the worker says something").expect("text")
    }

    /// Ends it at once (SIGKILL).
    ///
    /// # Panics
    /// When it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }

    /// Stops it where it is (SIGSTOP).
    ///
    /// # Panics
    /// When it is gone.
    pub fn pause(&self) {
        signal_child(&self.child, Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Panics
    /// When it is gone.
    pub fn resume(&self) {
        signal_child(&self.child, Signal::CONT);
    }

    /// Waits for its end, which must be a success.
    ///
    /// # Panics
    /// When it failed.
    pub fn finish(mut self) {
        let status = self.child.wait().expect("a child of ours");
        assert!(status.success(), "a worker ended with {status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
