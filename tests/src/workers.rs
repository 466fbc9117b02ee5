//! Worker processes: the test's handle to the program `src/bin/worker`.
//!
//! A worker takes one JSON object as its argument and prints lines on its standard output.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::servers::signal_child;

/// A worker process. Dropping it kills the process.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts the program with this order.
    ///
    /// # Panics
    /// If the worker cannot be started.
    #[must_use]
    pub fn start(program: &str, order: &Value) -> Self {
        let mut child = Command::new(program)
            .arg(order.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the worker program");
        let stdout = child.stdout.take().expect("the stream is piped");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    /// An order to hold a key until the body is stopped.
    #[must_use]
    pub fn hold(url: &str, key: &str, ttl_ms: u64) -> Value {
        json!({ "do": "hold", "url": url, "key": key, "ttl_ms": ttl_ms })
    }

    /// The same as a reader, which shares the key with other readers.
    #[must_use]
    pub fn share(url: &str, key: &str, ttl_ms: u64) -> Value {
        json!({ "do": "share", "url": url, "key": key, "ttl_ms": ttl_ms })
    }

    /// The same with one of this many permits.
    #[must_use]
    pub fn count_in(url: &str, key: &str, ttl_ms: u64, permits: u32) -> Value {
        json!({ "do": "count_in", "url": url, "key": key, "ttl_ms": ttl_ms, "permits": permits })
    }

    /// The same as a fair waiter, which prints a line once it is queued.
    #[must_use]
    pub fn queue_up(url: &str, key: &str, ttl_ms: u64) -> Value {
        json!({ "do": "queue_up", "url": url, "key": key, "ttl_ms": ttl_ms })
    }

    /// An order to increment a file's number, tasks × rounds times, with or without the lock.
    #[must_use]
    pub fn count(url: &str, key: &str, file: &str, tasks: u64, rounds: u64, locked: bool) -> Value {
        json!({ "do": "count", "url": url, "key": key, "file": file, "tasks": tasks, "rounds": rounds, "locked": locked })
    }

    /// An order to buy until nothing is left: either under a lock in Redis around the purchase, or
    /// with a row lock in the purchase's own transaction. The worker commits in both cases.
    #[must_use]
    pub fn buy(locks: Option<&str>, shop: &str) -> Value {
        json!({ "do": "buy", "locks": locks, "shop": shop })
    }

    /// Returns the next line that the worker prints.
    ///
    /// # Panics
    /// If it ends without one.
    pub fn says(&mut self) -> String {
        self.lines.next().expect("the worker prints a line").expect("text")
    }

    /// Kills the worker (SIGKILL).
    ///
    /// # Panics
    /// If the worker is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child process");
        self.child.wait().expect("our own child process");
    }

    /// Pauses the worker (SIGSTOP).
    ///
    /// # Panics
    /// If the worker is gone.
    pub fn pause(&self) {
        signal_child(&self.child, Signal::STOP);
    }

    /// Resumes the worker (SIGCONT).
    ///
    /// # Panics
    /// If the worker is gone.
    pub fn resume(&self) {
        signal_child(&self.child, Signal::CONT);
    }

    /// Waits until the worker exits, which must be with success.
    ///
    /// # Panics
    /// If it failed.
    pub fn finish(mut self) {
        let status = self.child.wait().expect("our own child process");
        assert!(status.success(), "a worker exited with {status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
