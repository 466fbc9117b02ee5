//! Timers that fire when a check has moved the clock far enough, with the interface of tokio's.
//!
//! No step of another thread comes between looking at the clock and going to sleep. This is tokio's promise, so it is
//! not what is checked.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;

thread_local! {
    static SLEEPERS: RefCell<Vec<(Instant, Waker)>> = const { RefCell::new(vec![]) };
}

pub(crate) fn reset() {
    drop(SLEEPERS.take());
}

pub(crate) fn wake_due() {
    let now = clock::instant();
    let due: Vec<_> =
        SLEEPERS.with_borrow_mut(|sleepers| sleepers.extract_if(.., |(until, _)| *until <= now).collect());
    // Other threads may run, and sleep, while one is woken.
    for (_, waker) in due {
        waker.wake();
    }
}

#[derive(Debug)]
pub(crate) struct Sleep(Instant);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if clock::instant() >= self.0 {
            return Poll::Ready(());
        }
        SLEEPERS.with_borrow_mut(|sleepers| sleepers.push((self.0, cx.waker().clone())));
        Poll::Pending
    }
}

pub(crate) fn sleep_until(until: Instant) -> Sleep {
    Sleep(until)
}

pub(crate) fn sleep(pause: Duration) -> Sleep {
    Sleep(clock::instant() + pause)
}

#[derive(Debug)]
pub(crate) struct Elapsed;

pub(crate) async fn timeout_at<F: Future>(until: Instant, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut sleep) = (pin!(future), sleep_until(until));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(clock::instant() + limit, future).await
}
