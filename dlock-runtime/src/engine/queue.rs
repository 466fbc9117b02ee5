//! The local queue: tasks of one process that want the same key line up here, first come, first
//! served, and only the one in front talks to the backend.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::hash_map::VacantEntry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::key::LockKey;

/// Which backend of the registry.
pub(crate) type BackendIndex = usize;

type Queues = HashMap<(BackendIndex, LockKey), Queue>;

/// The queues of one registry.
#[derive(Debug, Default)]
pub(crate) struct LocalQueues(Mutex<Queues>);

/// An entry exists while somebody is in front; an empty queue behind them is normal.
#[derive(Debug, Default)]
struct Queue {
    /// Cancelled waiters stay until they are passed over or swept.
    waiters: VecDeque<oneshot::Sender<Place>>,
    /// Sweep when the queue has grown to this length, so that it stays within twice the live ones.
    sweep_at: usize,
}

/// The place in front. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Place {
    queues: Arc<LocalQueues>,
    /// `None` once it has been passed on.
    at: Option<(BackendIndex, LockKey)>,
}

/// In front at once, or behind others.
pub(crate) enum Entry {
    Front(Place),
    Behind(oneshot::Receiver<Place>),
}

impl LocalQueues {
    /// Takes the place in front if nobody has it.
    pub(crate) fn try_enter(
        self: &Arc<Self>,
        backend: BackendIndex,
        key: &LockKey,
    ) -> Option<Place> {
        match self.lock().entry((backend, key.clone())) {
            Occupied(_) => None,
            Vacant(vacant) => Some(self.front(vacant)),
        }
    }

    /// Takes the place in front, or lines up. Dropping the receiver leaves the queue.
    pub(crate) fn enter(self: &Arc<Self>, backend: BackendIndex, key: &LockKey) -> Entry {
        match self.lock().entry((backend, key.clone())) {
            Occupied(mut queue) => Entry::Behind(queue.get_mut().line_up()),
            Vacant(vacant) => Entry::Front(self.front(vacant)),
        }
    }

    fn front(self: &Arc<Self>, vacant: VacantEntry<'_, (BackendIndex, LockKey), Queue>) -> Place {
        let at = vacant.key().clone();
        vacant.insert(Queue::default());
        Place { queues: Arc::clone(self), at: Some(at) }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Queue {
    const SMALLEST_SWEEP: usize = 32;

    fn line_up(&mut self) -> oneshot::Receiver<Place> {
        if self.waiters.len() >= self.sweep_at.max(Self::SMALLEST_SWEEP) {
            self.waiters.retain(|waiter| !waiter.is_closed());
            self.sweep_at = self.waiters.len() * 2;
        }
        let (sender, receiver) = oneshot::channel();
        self.waiters.push_back(sender);
        receiver
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(at) = self.at.take() else { return };
        let mut place = Place { queues: Arc::clone(&self.queues), at: None };
        loop {
            let mut queues = self.queues.lock();
            let Some(next) = queues.get_mut(&at).and_then(|queue| queue.waiters.pop_front()) else {
                queues.remove(&at);
                return;
            };
            // The waiter wakes outside the lock. A place that lands in a receiver which is dropped
            // unread is passed on by its own drop.
            drop(queues);
            place.at = Some(at.clone());
            match next.send(place) {
                Ok(()) => return,
                Err(refused) => {
                    place = refused;
                    place.at = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(entry: Entry) -> oneshot::Receiver<Place> {
        match entry {
            Entry::Behind(receiver) => receiver,
            Entry::Front(_) => panic!("nobody was in front"),
        }
    }

    #[tokio::test]
    async fn waiters_are_served_in_the_order_they_came() {
        let queues = Arc::new(LocalQueues::default());
        let key = LockKey::from("k");
        let front = queues.try_enter(0, &key).unwrap();
        let second = behind(queues.enter(0, &key));
        let mut third = behind(queues.enter(0, &key));
        drop(front);
        let second = second.await.unwrap();
        assert!(third.try_recv().is_err());
        drop(second);
        drop(third.await.unwrap());
        assert_eq!(queues.len(), 0);
    }

    #[tokio::test]
    async fn a_cancelled_waiter_is_passed_over_even_when_its_place_was_sent() {
        let queues = Arc::new(LocalQueues::default());
        let key = LockKey::from("k");
        let front = queues.try_enter(0, &key).unwrap();
        let gone = behind(queues.enter(0, &key));
        let unread = behind(queues.enter(0, &key));
        let last = behind(queues.enter(0, &key));
        drop(gone);
        drop(front);
        drop(unread);
        drop(last.await.unwrap());
        assert_eq!(queues.len(), 0);
    }

    #[tokio::test]
    async fn cancelled_waiters_do_not_pile_up() {
        let queues = Arc::new(LocalQueues::default());
        let key = LockKey::from("k");
        let _front = queues.try_enter(0, &key).unwrap();
        for _ in 0..10_000 {
            drop(queues.enter(0, &key));
        }
        assert!(queues.lock()[&(0, key)].waiters.len() <= 2 * Queue::SMALLEST_SWEEP);
    }
}
