//! What many ask for at once and is done once: a connection, a login.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

/// Work under way whose outcome is for all who ask meanwhile.
///
/// It is done in a task of its own: nobody waits for a caller that is not polled, and a caller that is dropped takes
/// nothing away from the others.
pub(crate) struct SingleFlight<T>(Mutex<Option<Flight<T>>>);

type Flight<T> = Shared<BoxFuture<'static, Option<T>>>;

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The outcome of the work that is under way, or of this. Nothing if its runtime has ended.
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
    async fn all_who_ask_at_once_get_one_outcome() {
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
    async fn it_goes_on_without_who_has_begun_it() {
        let (flights, gate) = (SingleFlight::new(), Arc::new(Semaphore::new(0)));
        let work = |answer: u8| {
            let gate = Arc::clone(&gate);
            move || async move { gate.acquire().await.map(|_| answer).ok() }
        };
        // The first is polled once and no more; the second hears of its outcome all the same.
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
