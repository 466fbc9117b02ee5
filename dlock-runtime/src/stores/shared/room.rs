//! How many acquires are under way at once, so that renewals never wait behind all that there are.
//!
//! A store answers what comes over one connection in its order, or as fast as it can commit. Where thousands of tasks
//! ask at once, a renewal that comes after them would be answered when its lease is over. So acquires and releases wait
//! here, before anything is sent, and renewals do not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How many are inside at once: more than keeps a store busy, and answered in a small part of a lease.
const MOST: usize = 64;

/// How long one counts. Its answer may have come long ago, and its caller not been polled since.
const LONGEST: Duration = Duration::from_millis(500);

/// Who is told to come in may not be polled either: the others look for themselves so often.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct Room {
    inside: Mutex<Inside>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    /// By number, which is the order in which they came.
    since: BTreeMap<u64, Instant>,
    next: u64,
}

/// One who is inside, until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    room: &'a Room,
    number: u64,
}

impl Room {
    /// Waits for room. Cancel safe.
    pub(crate) async fn enter(&self) -> Ticket<'_> {
        loop {
            let left = self.left.notified();
            if let Some(number) = self.inside().admit(Instant::now()) {
                return Ticket { room: self, number };
            }
            let _ = tokio::time::timeout(LOOK, left).await;
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn admit(&mut self, now: Instant) -> Option<u64> {
        while let Some(oldest) = self.since.first_entry()
            && now.saturating_duration_since(*oldest.get()) >= LONGEST
        {
            oldest.remove();
        }
        if self.since.len() >= MOST {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.since.insert(number, now);
        Some(number)
    }
}

impl Drop for Ticket<'_> {
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
    async fn no_more_are_inside_and_all_come_in() {
        let (room, inside) = (Room::default(), AtomicUsize::new(0));
        let one = || async {
            let ticket = room.enter().await;
            let now = inside.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
            inside.fetch_sub(1, Ordering::Relaxed);
            drop(ticket);
            now
        };
        let began = Instant::now();
        let most = join_all((0..MOST * 10).map(|_| one())).await.into_iter().max();
        assert_eq!(most, Some(MOST));
        // Nobody waited for a look.
        assert!(began.elapsed() < LOOK, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_polled_keeps_nobody_out_for_long() {
        let room = Arc::new(Room::default());
        let mut asleep = vec![];
        for _ in 0..MOST * 2 {
            let room = Arc::clone(&room);
            let mut one = Box::pin(async move {
                let _ticket = room.enter().await;
                std::future::pending::<()>().await;
            });
            assert!(futures_util::poll!(&mut one).is_pending());
            asleep.push(one);
        }
        let began = Instant::now();
        drop(room.enter().await);
        assert!(began.elapsed() <= LONGEST + LOOK, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_dropped_leaves() {
        let room = Room::default();
        let tickets = join_all((0..MOST).map(|_| room.enter())).await;
        let mut waits = Box::pin(room.enter());
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(waits);
        drop(tickets);
        let _ticket = room.enter().await;
        assert_eq!(room.inside().since.len(), 1);
    }
}
