//! Limits how many acquires and releases are in flight at once, so that no renewal waits behind thousands of them.
//!
//! A store answers the requests of one connection in order, or as fast as it can commit. If thousands of tasks sent
//! requests at once, a renewal behind them would be answered after its lease has ended. Therefore acquires and releases
//! wait here before anything is sent. Renewals do not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How many requests are inside at once: more than enough to keep a store busy, and few enough to be answered within a
/// small part of a lease.
const CAPACITY: usize = 64;

/// How long a request counts. Its answer may have arrived long ago while its task was not polled.
const LONGEST_STAY: Duration = Duration::from_millis(500);

/// How often waiting tasks check for room on their own. The task that was notified may not be polled.
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct InFlightLimit {
    inside: Mutex<Inside>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    /// When each request entered, by number and therefore in order.
    since: BTreeMap<u64, Instant>,
    next: u64,
}

/// Admits one request. Dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    room: &'a InFlightLimit,
    number: u64,
}

impl InFlightLimit {
    /// Waits for room. Cancel safe.
    pub(crate) async fn enter(&self) -> Admission<'_> {
        loop {
            let left = self.left.notified();
            if let Some(number) = self.inside().admit(Instant::now()) {
                return Admission { room: self, number };
            }
            let _ = tokio::time::timeout(POLL, left).await;
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn admit(&mut self, now: Instant) -> Option<u64> {
        while let Some(oldest) = self.since.first_entry()
            && now.saturating_duration_since(*oldest.get()) >= LONGEST_STAY
        {
            oldest.remove();
        }
        if self.since.len() >= CAPACITY {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.since.insert(number, now);
        Some(number)
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        self.room.inside().since.remove(&self.number);
        self.room.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_capacity_are_inside_and_all_get_in() {
        let (room, inside) = (InFlightLimit::default(), AtomicUsize::new(0));
        let one = || async {
            let admission = room.enter().await;
            let now = inside.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
            inside.fetch_sub(1, Ordering::Relaxed);
            drop(admission);
            now
        };
        let began = Instant::now();
        let most = join_all((0..CAPACITY * 10).map(|_| one())).await.into_iter().max();
        assert_eq!(most, Some(CAPACITY));
        // Nobody waited for a poll.
        assert!(began.elapsed() < POLL, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_not_polled_blocks_the_others_only_briefly() {
        let room = Arc::new(InFlightLimit::default());
        let mut asleep = vec![];
        for _ in 0..CAPACITY * 2 {
            let room = Arc::clone(&room);
            let mut one = Box::pin(async move {
                let _admission = room.enter().await;
                std::future::pending::<()>().await;
            });
            assert!(futures_util::poll!(&mut one).is_pending());
            asleep.push(one);
        }
        let began = Instant::now();
        drop(room.enter().await);
        assert!(began.elapsed() <= LONGEST_STAY + POLL, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_an_admission_makes_room() {
        let room = InFlightLimit::default();
        let admissions = join_all((0..CAPACITY).map(|_| room.enter())).await;
        let mut waits = Box::pin(room.enter());
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(waits);
        drop(admissions);
        let _admission = room.enter().await;
        assert_eq!(room.inside().since.len(), 1);
    }
}
