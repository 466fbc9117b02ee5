//! Driving a future step by step, to drop it at a chosen one.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// How far a future was driven.
#[derive(Debug, PartialEq, Eq)]
pub enum Steps<T> {
    /// To its end.
    Completed(T),
    /// It was dropped, still pending, after this many polls.
    Dropped,
}

/// Polls the future at most `polls` times, each time when it has been woken, lets `linger` pass, and
/// drops it.
///
/// Calling it with 1, 2, 3… until it completes drops the future at every point where it can be
/// suspended: without lingering before anything it has begun is under way, with it after that has been
/// done but not been heard of.
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
