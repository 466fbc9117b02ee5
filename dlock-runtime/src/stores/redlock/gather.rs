//! Asks several nodes at once, for one caller. Deadlines, early exit, late answers and errors are handled here, and for
//! callers whose requests go out together in `gathering.rs`.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep_until};

use super::answers::Answers;
use crate::error::BackendError;

/// The least time that the remaining nodes get once the outcome is decided. An answer tells what has to be
/// undone on a node; silence leaves it open.
pub(super) const GRACE: Duration = Duration::from_millis(2);

/// A request to the node with this number.
pub(super) struct Ask<T> {
    node: usize,
    answer: BoxFuture<'static, Result<T, BackendError>>,
}

impl<T: Send + 'static> Ask<T> {
    pub(super) fn new(
        node: usize,
        request: impl Future<Output = Result<T, BackendError>> + Send + 'static,
    ) -> Self {
        Self { node, answer: request.boxed() }
    }
}

/// For [`gather`]: waits until the given number of nodes have answered.
pub(super) fn answered<T>(wanted: usize) -> impl Fn(&Answers<T>) -> bool {
    move |answers| answers.len() >= wanted
}

/// For [`gather`]: waits for every node.
pub(super) fn every<T>(_: &Answers<T>) -> bool {
    false
}

/// Sends these requests and collects the results until all have arrived or `limit` is over.
///
/// `is_enough` is asked after each result, errors included. When it says yes, the remaining nodes get as much time
/// again as has passed, but at least [`GRACE`] and never more than is left of `limit`. What arrives in
/// this time still counts.
///
/// Slower nodes may answer in the background, for as long as their connection allows. So a peer that has vanished is
/// noticed, and a slow one is not mistaken for it. Nobody sees these answers.
///
/// Cancel safe: requests without an answer are dropped.
pub(super) async fn gather<T: Send + 'static>(
    mut asks: Vec<Ask<T>>,
    limit: Duration,
    mut is_enough: impl FnMut(&Answers<T>) -> bool,
) -> Answers<T> {
    let began = Instant::now();
    let mut answers = Answers::of(asks.len());
    let mut until = began + limit;
    let mut time_is_up = pin!(sleep_until(until));
    std::future::poll_fn(|cx| {
        // They are few, so each of them is polled when one of them wakes the task.
        asks.retain_mut(|ask| {
            let Poll::Ready(answer) = ask.answer.poll_unpin(cx) else { return true };
            answers.add(ask.node, answer);
            if is_enough(&answers) {
                until = until.min(Instant::now() + began.elapsed().max(GRACE));
            }
            false
        });
        if asks.is_empty() {
            return Poll::Ready(());
        }
        if until < time_is_up.deadline() {
            time_is_up.as_mut().reset(until);
        }
        time_is_up.as_mut().poll(cx)
    })
    .await;
    if !asks.is_empty() {
        answers.end(asks.iter().map(|ask| ask.node).collect());
        tokio::spawn(join_all(asks.into_iter().map(|ask| ask.answer)));
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::TryFutureExt;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    /// One node for each number, which answers after this many milliseconds.
    fn after(milliseconds: &[u64]) -> Vec<Ask<u64>> {
        let node = |(node, after): (usize, &u64)| {
            let after = *after;
            Ask::new(node, async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                Ok(after)
            })
        };
        milliseconds.iter().enumerate().map(node).collect()
    }

    fn failed(node: usize) -> Ask<u64> {
        Ask::new(node, async { Err(BackendError::transient("refused")) })
    }

    fn heard(answers: &Answers<u64>) -> Vec<u64> {
        answers.iter().map(|(_, answer)| *answer).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn once_decided_the_others_get_as_much_time_again() {
        let answers = gather(after(&[30, 10, 15, 19]), LIMIT, answered(1)).await;
        assert_eq!(heard(&answers), [10, 15, 19]);
        assert_eq!(answers.silent(), [0]);
        assert!(answers.has(3) && !answers.has(0));
    }

    #[tokio::test(start_paused = true)]
    async fn once_decided_the_others_get_the_grace_at_least() {
        let answers = gather(after(&[0, 1, 5]), LIMIT, answered(1)).await;
        assert_eq!(heard(&answers), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_gets_more_than_the_limit() {
        let began = Instant::now();
        let answers = gather(after(&[80, 90, 120]), LIMIT, answered(1)).await;
        assert_eq!(heard(&answers), [80, 90]);
        assert!(began.elapsed() < LIMIT + GRACE, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_no_answers_and_are_not_silent() {
        let mut asks = after(&[10, 20]);
        asks.push(failed(2));
        let began = Instant::now();
        let answers = gather(asks, LIMIT, answered(3)).await;
        assert!(began.elapsed() < LIMIT, "nobody is left to wait for");
        assert_eq!((answers.len(), answers.errors().count()), (2, 1));
        assert!(answers.silent().is_empty());
        assert!(matches!(answers.newest(), Some((1, Ok(20)))));
    }

    #[tokio::test(start_paused = true)]
    async fn late_nodes_answer_in_the_background() {
        let done = Arc::new(AtomicU32::new(0));
        let asks = after(&[10, 50, 200]).into_iter().map(|ask| {
            let done = Arc::clone(&done);
            Ask::new(
                ask.node,
                ask.answer.inspect_ok(move |_| {
                    done.fetch_add(1, Ordering::SeqCst);
                }),
            )
        });
        let answers = gather(asks.collect(), LIMIT, answered(1)).await;
        assert_eq!((answers.len(), done.load(Ordering::SeqCst)), (1, 1));
        tokio::time::sleep(LIMIT * 3).await;
        assert_eq!(done.load(Ordering::SeqCst), 3);
    }
}
