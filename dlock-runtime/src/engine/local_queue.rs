//! The local queue: tasks of one process that want the same key line up here, first come, first
//! served, and only the one in front talks to the backend.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::hash_map::VacantEntry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::error::BackendError;
use crate::key::LockKey;

/// Which backend of the registry.
pub(crate) type BackendIndex = usize;

type Queues = HashMap<(BackendIndex, LockKey), Queue>;

/// The queues of one engine.
#[derive(Debug, Default)]
pub(crate) struct LocalQueues(Mutex<Queues>);

/// An entry exists while somebody is in front; an empty queue behind them is normal.
#[derive(Debug, Default)]
struct Queue {
    /// Cancelled waiters stay until they are passed over or swept.
    waiters: VecDeque<oneshot::Sender<Turn>>,
    /// Sweep when the queue has grown to this length, so that it stays within twice the live ones.
    sweep_at: usize,
    /// What the store last said of the key to one in front; that it is busy, or that it failed.
    heard: Option<Result<(), BackendError>>,
    /// The one in front has asked the store, and has no answer yet.
    asking: Option<Asking>,
    /// Made for those whose time is over before anything was heard.
    heard_anew: Option<Arc<Notify>>,
}

/// A request of the one in front that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Asking {
    since: Instant,
    /// It waits for its turn in the store's own queue, which takes as long as it takes.
    in_turn: bool,
}

/// Why those behind have to wait, as far as this process knows.
#[derive(Debug)]
pub(crate) enum Known {
    /// The one in front holds the key, or the store said that somebody else does.
    Busy,
    /// The store failed.
    Failed(BackendError),
    /// The store has been asked at that moment, and has not answered.
    Asked(Instant),
    /// The one in front waits in the store's own queue, or is about to ask.
    Nothing,
}

/// The place in front. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Turn {
    queues: Arc<LocalQueues>,
    /// `None` once it has been passed on.
    at: Option<(BackendIndex, LockKey)>,
}

/// In front at once, or behind others.
pub(crate) enum Joined {
    Front(Turn),
    Behind(oneshot::Receiver<Turn>),
}

impl LocalQueues {
    /// Takes the place in front if nobody has it.
    pub(crate) fn try_enter(
        self: &Arc<Self>,
        backend: BackendIndex,
        key: &LockKey,
    ) -> Option<Turn> {
        match self.lock().entry((backend, key.clone())) {
            Occupied(_) => None,
            Vacant(vacant) => Some(self.front(vacant)),
        }
    }

    /// Takes the place in front, or lines up. Dropping the receiver leaves the queue.
    pub(crate) fn enter(self: &Arc<Self>, backend: BackendIndex, key: &LockKey) -> Joined {
        match self.lock().entry((backend, key.clone())) {
            Occupied(mut queue) => Joined::Behind(queue.get_mut().line_up()),
            Vacant(vacant) => Joined::Front(self.front(vacant)),
        }
    }

    /// Is a task of this process in front?
    pub(crate) fn is_occupied(&self, backend: BackendIndex, key: &LockKey) -> bool {
        self.lock().contains_key(&(backend, key.clone()))
    }

    /// Why those behind the one in front have to wait; a request that has been without an answer since before
    /// `too_long_ago` is a failure.
    pub(crate) fn known(
        &self,
        backend: BackendIndex,
        key: &LockKey,
        too_long_ago: Instant,
    ) -> Known {
        let queues = self.lock();
        let Some(queue) = queues.get(&(backend, key.clone())) else { return Known::Nothing };
        match (&queue.heard, queue.asking) {
            (_, Some(Asking { since, in_turn: false })) if since <= too_long_ago => {
                Known::Asked(since)
            }
            (Some(Ok(())), _) => Known::Busy,
            (Some(Err(error)), _) => Known::Failed(error.clone()),
            (None, Some(Asking { since, in_turn: false })) => Known::Asked(since),
            (None, _) => Known::Nothing,
        }
    }

    /// Notifies when more is known; to be called before [`known`](Self::known).
    pub(crate) fn heard_anew(&self, backend: BackendIndex, key: &LockKey) -> Arc<Notify> {
        let mut queues = self.lock();
        let queue = queues.get_mut(&(backend, key.clone()));
        queue.map(|queue| Arc::clone(queue.heard_anew.get_or_insert_default())).unwrap_or_default()
    }

    fn front(self: &Arc<Self>, vacant: VacantEntry<'_, (BackendIndex, LockKey), Queue>) -> Turn {
        let at = vacant.key().clone();
        vacant.insert(Queue::default());
        Turn { queues: Arc::clone(self), at: Some(at) }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Queue {
    const SMALLEST_SWEEP: usize = 32;

    fn line_up(&mut self) -> oneshot::Receiver<Turn> {
        if self.waiters.len() >= self.sweep_at.max(Self::SMALLEST_SWEEP) {
            self.waiters.retain(|waiter| !waiter.is_closed());
            self.sweep_at = self.waiters.len() * 2;
        }
        let (sender, receiver) = oneshot::channel();
        self.waiters.push_back(sender);
        receiver
    }
}

impl Turn {
    /// Notes that the store is being asked.
    pub(crate) fn asks(&self, since: Instant, in_turn: bool) {
        self.note(|queue| queue.asking = Some(Asking { since, in_turn }));
    }

    /// Notes what the store has said, for those behind.
    pub(crate) fn hears(&self, heard: Result<(), BackendError>) {
        let notify = self.note(|queue| {
            queue.asking = None;
            queue.heard = Some(heard);
            queue.heard_anew.clone()
        });
        if let Some(notify) = notify.flatten() {
            notify.notify_waiters();
        }
    }

    fn note<R>(&self, note: impl FnOnce(&mut Queue) -> R) -> Option<R> {
        let at = self.at.as_ref()?;
        self.queues.lock().get_mut(at).map(note)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(at) = self.at.take() else { return };
        let mut place = Turn { queues: Arc::clone(&self.queues), at: None };
        loop {
            let mut queues = self.queues.lock();
            let next = queues.get_mut(&at).and_then(|queue| {
                queue.asking = None;
                queue.waiters.pop_front()
            });
            let Some(next) = next else {
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

    fn behind(entry: Joined) -> oneshot::Receiver<Turn> {
        match entry {
            Joined::Behind(receiver) => receiver,
            Joined::Front(_) => panic!("nobody was in front"),
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
