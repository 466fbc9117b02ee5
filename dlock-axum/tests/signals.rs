//! Signals of the operating system. Each is for the whole process, so this is one test.
#![cfg(unix)]

use std::pin::pin;
use std::time::Duration;

use dlock_axum::shutdown_signal;
use futures_util::poll;
use rustix::process::{Signal, getpid, kill_process};

#[tokio::test]
async fn sigterm_and_ctrl_c_are_shutdown_signals() {
    for sent in [Signal::TERM, Signal::INT] {
        let mut signal = pin!(shutdown_signal());
        assert!(poll!(&mut signal).is_pending(), "it came before it was sent");
        kill_process(getpid(), sent).expect("a signal to this process");
        tokio::time::timeout(Duration::from_mins(1), signal).await.expect("it was not seen");
    }
}
