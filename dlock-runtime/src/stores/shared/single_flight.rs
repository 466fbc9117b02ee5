//! Work that many callers request at once and that is done once, such as a connection or a login.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

/// Work in progress whose outcome is shared by all callers that join it.
///
/// It runs in a task of its own, so a caller that is not polled delays nobody, and a caller that is dropped does not
/// cancel it for the others.
pub(crate) struct SingleFlight<T>(Mutex<Option<Flight<T>>>);

type Flight<T> = Shared<BoxFuture<'static, Option<T>>>;

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Waits for the work in progress, or starts `work` if there is none. Returns `None` if its runtime has shut down.
    pub(crate) async fn join<F>(&self, work: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let flight = {
            let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &*current {
                Some(flight) if flight.peek().is_none() => flight.clone(),
                _ => {
                    let task = tokio::spawn(work());
                    let flight = async move { task.await.ok() }.boxed().shared();
                    *current = Some(flight.clone());
                    flight
                }
            }
        };
        flight.await
    }
}

impl<T> fmt::Debug for SingleFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SingleFlight")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn concurrent_callers_share_one_outcome() {
        let (flights, done) = (SingleFlight::new(), Arc::new(AtomicUsize::new(0)));
        for round in 1..=3 {
            let work = || {
                let done = Arc::clone(&done);
                async move {
                    tokio::task::yield_now().await;
                    done.fetch_add(1, Ordering::Relaxed) + 1
                }
            };
            let outcomes = join_all((0..100).map(|_| flights.join(work))).await;
            assert!(outcomes.iter().all(|outcome| *outcome == Some(round)), "{outcomes:?}");
        }
    }

    #[tokio::test]
    async fn the_work_continues_without_the_caller_that_started_it() {
        let (flights, gate) = (SingleFlight::new(), Arc::new(Semaphore::new(0)));
        let work = |answer: u8| {
            let gate = Arc::clone(&gate);
            move || async move { gate.acquire().await.map(|_| answer).ok() }
        };
        // The first caller is never polled again, and the second still gets the outcome.
        let mut first = Box::pin(flights.join(work(1)));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(flights.join(work(2)));
        assert!(futures_util::poll!(&mut second).is_pending());
        gate.add_permits(1);
        assert_eq!(second.await, Some(Some(1)));
        drop(first);
        gate.add_permits(1);
        assert_eq!(flights.join(work(3)).await, Some(Some(3)));
    }
}
