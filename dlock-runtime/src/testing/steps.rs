//! Polls a future a limited number of times and then drops it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// How far a future was driven.
#[derive(Debug, PartialEq, Eq)]
pub enum Steps<T> {
    /// It completed.
    Completed(T),
    /// It was still pending after the given number of polls, and was dropped.
    Dropped,
}

/// Polls the future at most `polls` times, each time after it was woken, waits for `linger`, and drops
/// it.
///
/// Call it with 1, 2, 3… polls until the future completes, to drop it at every point where it can be
/// suspended. With a zero `linger`, the future is dropped before its requests make progress. Otherwise
/// they are executed, but the future is dropped before it sees the answers.
pub async fn step<F: Future>(polls: usize, linger: Duration, future: F) -> Steps<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    let steps = poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(Steps::Dropped);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Steps::Completed(value)),
            Poll::Pending if left == 0 => Poll::Ready(Steps::Dropped),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    if let (Steps::Dropped, false) = (&steps, linger.is_zero()) {
        tokio::time::sleep(linger).await;
    }
    steps
}
