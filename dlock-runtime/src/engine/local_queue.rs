//! The local queue: tasks of one process that want the same key queue here, first come, first
//! served. Only the task at the front talks to the backend.

mod waiters;

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::runtime;
use tokio::time::Instant;

pub(super) use self::waiters::KeptWatch;
use self::waiters::{Waiter, Waiters};
use super::contention::LocalHolder;
use super::deadline::MIN_ANSWER_TIME;
use super::passing::{Lease, Passable};
use crate::backend::Watch;
use crate::clock;
use crate::error::BackendError;
use crate::key::{KeyMap, LockKey};
use crate::sync::{Mutex, MutexGuard, Notify, oneshot};

/// The index of a backend in the registry.
pub(crate) type BackendIndex = usize;

/// The queues of one engine.
#[derive(Debug, Default)]
pub(crate) struct LocalQueues(Mutex<Queues>);

/// The queues of each backend, by key.
#[derive(Debug, Default)]
struct Queues(Vec<KeyMap<Queue>>);

impl Queues {
    fn of(&mut self, backend: BackendIndex) -> &mut KeyMap<Queue> {
        if self.0.len() <= backend {
            self.0.resize_with(backend + 1, KeyMap::default);
        }
        &mut self.0[backend]
    }

    fn get(&mut self, backend: BackendIndex, key: &LockKey) -> Option<&mut Queue> {
        self.0.get_mut(backend)?.get_mut(key)
    }
}

/// The queue of one key. It exists while a task is at the front, and usually has no waiters.
#[derive(Debug, Default)]
struct Queue {
    /// Boxed, because most queues never have any.
    waiters: Option<Box<Waiters>>,
    /// The last answer that a task at the front got from the store.
    heard: Option<Heard>,
    /// The unanswered request of the task at the front, if any.
    asking: Option<Asking>,
}

/// What a waiter gets when it is next.
#[derive(Debug)]
pub(crate) enum Next {
    /// The front of the queue: it may ask the store.
    Turn(Turn),
    /// The front of the queue, and with it the lease of the task before it.
    Lease(Lease),
}

impl Next {
    /// The front of the queue alone. `None` only if the lease had none, which does not happen.
    pub(crate) fn into_turn(self) -> Option<Turn> {
        match self {
            Self::Turn(turn) => Some(turn),
            Self::Lease(lease) => lease.into_turn(),
        }
    }
}

/// What a task at the front knows of the key.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// The task holds it.
    Held(LocalHolder),
    /// Somebody else held it, or went first, when the store answered.
    Busy,
    /// The store failed.
    Failed(BackendError),
}

/// An answer of the store to a task at the front.
#[derive(Debug)]
struct Heard {
    /// When it was certainly true: a moment before the request was sent. `None` if that is not known.
    at: Option<Instant>,
    front: Front,
}

/// How the task that got an answer is doing now. Two variants, because a queue is kept for each held key, and this way
/// takes no more than the larger one.
#[derive(Debug)]
enum Front {
    Holds(LocalHolder),
    DoesNotHold {
        /// The answer was a failure.
        failure: Option<BackendError>,
        /// It is no longer at the front, or is releasing the key. Otherwise it asks again from time to time.
        left: bool,
    },
}

impl Front {
    const LEFT: Self = Self::DoesNotHold { failure: None, left: true };

    const fn asks(failure: Option<BackendError>) -> Self {
        Self::DoesNotHold { failure, left: false }
    }

    fn leave(&mut self) {
        match self {
            Self::Holds(_) => *self = Self::LEFT,
            Self::DoesNotHold { left, .. } => *left = true,
        }
    }

    fn failure(&self) -> Option<&BackendError> {
        match self {
            Self::Holds(_) => None,
            Self::DoesNotHold { failure, .. } => failure.as_ref(),
        }
    }
}

impl Heard {
    /// Whether it says something about the time since that moment.
    fn is_since(&self, began: Instant) -> bool {
        self.at.is_some_and(|at| at >= began)
    }

    /// Whether the key is held at this moment, as far as this process can know. The task at the front asks again well
    /// within [`HEARSAY`], unless the process is paused.
    fn is_held(&self, now: Instant) -> bool {
        let is_recent = || now.checked_sub(HEARSAY).is_none_or(|oldest| self.is_since(oldest));
        match &self.front {
            Front::Holds(_) => true,
            Front::DoesNotHold { failure, left } => !left && failure.is_none() && is_recent(),
        }
    }
}

/// How long a waiter may be told what the task at the front was told.
const HEARSAY: Duration = Duration::from_secs(2);

/// An unanswered request of the task at the front.
#[derive(Clone, Copy, Debug)]
struct Asking {
    since: Instant,
    /// The request waits in the store's own queue, which can take arbitrarily long.
    in_turn: bool,
}

/// Why the waiters have to wait, as far as this process knows.
#[derive(Debug)]
pub(crate) enum Known {
    /// The task at the front holds the key, or the store reported another holder.
    Busy,
    /// The store failed.
    Failed(BackendError),
    /// The request was sent at this instant and has not been answered.
    Asked(Instant),
    /// The task at the front waits in the store's own queue, or is about to send a request.
    Nothing,
}

/// The front of the queue. Dropping it passes it to the next waiter.
#[derive(Debug)]
pub(crate) struct Turn {
    queues: Arc<LocalQueues>,
    /// `None` once it has been passed on.
    at: Option<(BackendIndex, LockKey)>,
}

/// The result of joining a queue: at the front, or behind others.
pub(crate) enum Joined {
    Front(Turn),
    Behind(oneshot::Receiver<Next>),
}

impl LocalQueues {
    /// Takes the front of the queue if it is free.
    pub(crate) fn try_enter(
        self: &Arc<Self>,
        backend: BackendIndex,
        key: &LockKey,
    ) -> Option<Turn> {
        match self.lock().of(backend).entry(key.clone()) {
            Occupied(_) => None,
            Vacant(vacant) => {
                vacant.insert(Queue::default());
                Some(self.front(backend, key))
            }
        }
    }

    /// Takes the front of the queue, or joins its end. Dropping the receiver leaves the queue. A waiter is passed only
    /// a lease that it accepts.
    pub(crate) fn enter(
        self: &Arc<Self>,
        backend: BackendIndex,
        key: &LockKey,
        accepts: Option<Passable>,
    ) -> Joined {
        match self.lock().of(backend).entry(key.clone()) {
            Occupied(mut queue) => Joined::Behind(queue.get_mut().push(accepts)),
            Vacant(vacant) => {
                vacant.insert(Queue::default());
                Joined::Front(self.front(backend, key))
            }
        }
    }

    /// Returns true if a task of this process is at the front.
    pub(crate) fn is_occupied(&self, backend: BackendIndex, key: &LockKey) -> bool {
        self.lock().get(backend, key).is_some()
    }

    /// Returns why a waiter that began at `began` has to wait now.
    pub(crate) fn known(
        &self,
        backend: BackendIndex,
        key: &LockKey,
        began: Instant,
        now: Instant,
    ) -> Known {
        let mut queues = self.lock();
        let Some(queue) = queues.get(backend, key) else { return Known::Nothing };
        match (&queue.heard, queue.asking) {
            (_, Some(Asking { since, in_turn: false })) if now >= since + MIN_ANSWER_TIME => {
                Known::Asked(since)
            }
            (Some(heard), _) if heard.front.failure().is_some() => {
                heard.front.failure().cloned().map_or(Known::Nothing, Known::Failed)
            }
            (Some(heard), _) if heard.is_since(began) => Known::Busy,
            (Some(heard), None) if heard.is_held(now) => Known::Busy,
            // What was heard is older than the waiter: the key may have been free ever since.
            (_, Some(Asking { since, in_turn: false })) => Known::Asked(since),
            (_, _) => Known::Nothing,
        }
    }

    /// Records that a lease was taken back from the task at the front, which has not noticed that it has it. Nobody here
    /// holds the key from now on.
    pub(crate) fn note_recall(&self, backend: BackendIndex, key: &LockKey) {
        if let Some(queue) = self.lock().get(backend, key)
            && queue.asking.is_none()
            && let Some(heard) = &mut queue.heard
        {
            heard.front.leave();
        }
    }

    /// Returns a `Notify` that is notified when more is known. Call it before [`known`](Self::known), so that no
    /// change is missed.
    pub(crate) fn answer_noted(&self, backend: BackendIndex, key: &LockKey) -> Arc<Notify> {
        let mut queues = self.lock();
        let waiters = queues.get(backend, key).map(|queue| queue.waiters.get_or_insert_default());
        waiters
            .map(|waiters| Arc::clone(waiters.answer_noted.get_or_insert_default()))
            .unwrap_or_default()
    }

    /// The task of this process that holds the key, if one does.
    pub(super) fn holder(&self, backend: BackendIndex, key: &LockKey) -> Option<LocalHolder> {
        let mut queues = self.lock();
        let queue = queues.get(backend, key)?;
        match queue.heard.as_ref()?.front {
            Front::Holds(holder) => Some(holder),
            Front::DoesNotHold { .. } => None,
        }
    }

    fn front(self: &Arc<Self>, backend: BackendIndex, key: &LockKey) -> Turn {
        Turn { queues: Arc::clone(self), at: Some((backend, key.clone())) }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.lock().0.iter().map(KeyMap::len).sum()
    }
}

impl Queue {
    fn push(&mut self, accepts: Option<Passable>) -> oneshot::Receiver<Next> {
        self.waiters.get_or_insert_default().push(accepts)
    }

    /// The next waiter. It has asked nothing yet.
    fn pass_on(&mut self) -> Option<oneshot::Sender<Next>> {
        self.asking = None;
        if let Some(heard) = &mut self.heard {
            heard.front.leave();
        }
        self.waiters.as_mut()?.line.pop_front().map(|waiter| waiter.sender)
    }

    /// The next waiter, if it has given up or accepts this lease. The front holds the key all the while.
    fn next_accepting(&mut self, lease: &Passable) -> Option<oneshot::Sender<Next>> {
        let next = |waiter: &mut Waiter| {
            waiter.sender.is_closed() || waiter.accepts.is_some_and(|one| one.accepts(lease))
        };
        self.waiters.as_mut()?.line.pop_front_if(next).map(|waiter| waiter.sender)
    }
}

impl Turn {
    /// Records that a request has been sent to the store.
    pub(crate) fn note_request(&self, since: Instant, in_turn: bool) {
        self.note(|queue| queue.asking = Some(Asking { since, in_turn }));
    }

    /// Records the answer of the store, and notifies the waiters.
    pub(crate) fn note_answer(&self, news: News) {
        let notify = self.note(|queue| {
            let asked = queue.asking.take().map(|asking| asking.since);
            // A holder that was granted the key at once needs no clock: it holds the key until it says otherwise.
            let at = asked.or_else(|| matches!(news, News::Busy).then(clock::instant));
            let front = match news {
                News::Held(holder) => Front::Holds(holder),
                News::Busy => Front::asks(None),
                News::Failed(error) => Front::asks(Some(error)),
            };
            queue.heard = Some(Heard { at, front });
            queue.waiters.as_ref()?.answer_noted.clone()
        });
        if let Some(notify) = notify.flatten() {
            notify.notify_waiters();
        }
    }

    /// Records which task holds the key, to which the lease was passed on.
    pub(super) fn note_holder(&self, holder: LocalHolder) {
        self.note(|queue| {
            if let Some(heard) = &mut queue.heard {
                heard.front = Front::Holds(holder);
            }
        });
    }

    /// Records that the key was held until now, and is being released.
    pub(crate) fn note_release(&self) {
        self.note(|queue| {
            if let Some(heard) = &mut queue.heard {
                // Those who come later begin later, so they need no moment.
                heard.at = queue.waiters.is_some().then(clock::instant);
                heard.front.leave();
            }
        });
    }

    /// The next waiter, if it accepts this lease. It is no longer in the queue.
    pub(super) fn next_accepting(&self, lease: &Passable) -> Option<oneshot::Sender<Next>> {
        loop {
            let next = self.note(|queue| queue.next_accepting(lease)).flatten()?;
            if !next.is_closed() {
                return Some(next);
            }
            // One that has given up is dropped here, and not under the lock, because its waker goes with it.
        }
    }

    /// Keeps a watch of the key for the next task, if there is one.
    pub(super) fn leave_watch(&self, watch: KeptWatch) {
        let mut watch = Some(watch);
        self.note(|queue| {
            if let Some(waiters) = queue.waiters.as_mut().filter(|all| !all.line.is_empty()) {
                std::mem::swap(&mut waiters.watch, &mut watch);
            }
        });
        // One that nobody needs is dropped here, and not under the lock.
    }

    /// The watch that a task of this runtime left.
    pub(super) fn take_watch(&self, runtime: runtime::Id) -> Option<Box<dyn Watch>> {
        let watch = self.note(|queue| queue.waiters.as_mut()?.watch.take());
        watch.flatten()?.on(runtime)
    }

    /// About how many tasks wait behind this one. Some of them may have given up.
    pub(super) fn waiters(&self) -> usize {
        let count = |queue: &mut Queue| queue.waiters.as_ref().map_or(0, |all| all.line.len());
        self.note(count).unwrap_or_default()
    }

    fn note<R>(&self, note: impl FnOnce(&mut Queue) -> R) -> Option<R> {
        let (backend, key) = self.at.as_ref()?;
        self.queues.lock().get(*backend, key).map(note)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((backend, key)) = self.at.take() else { return };
        loop {
            let mut queues = self.queues.lock();
            let queues_of_backend = queues.of(backend);
            let next = queues_of_backend.get_mut(&key).and_then(Queue::pass_on);
            let Some(next) = next else {
                let queue = queues_of_backend.remove(&key);
                drop(queues);
                // Not under the lock, because a watch may go with it.
                drop(queue);
                return;
            };
            // Wakes the waiter outside the lock. A turn that reaches a receiver which is then dropped
            // unread is passed on by its own drop.
            drop(queues);
            match next.send(Next::Turn(self.queues.front(backend, &key))) {
                Err(Next::Turn(mut refused)) => refused.at = None,
                Ok(()) | Err(Next::Lease(_)) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::FencingToken;

    fn behind(joined: Joined) -> oneshot::Receiver<Next> {
        match joined {
            Joined::Behind(receiver) => receiver,
            Joined::Front(_) => panic!("the queue was empty"),
        }
    }

    #[tokio::test]
    async fn waiters_are_served_in_arrival_order() {
        let queues = Arc::new(LocalQueues::default());
        let key = LockKey::from("k");
        let front = queues.try_enter(0, &key).unwrap();
        let second = behind(queues.enter(0, &key, None));
        let mut third = behind(queues.enter(0, &key, None));
        drop(front);
        let second = second.await.unwrap();
        assert!(third.try_recv().is_err());
        drop(second);
        drop(third.await.unwrap());
        assert_eq!(queues.len(), 0);
    }

    fn holder() -> LocalHolder {
        LocalHolder { site: "shop::purchase", token: FencingToken::new(1) }
    }

    /// What a waiter that began at `began` is told, `later` than that.
    fn told(queues: &LocalQueues, began: Instant, later: Duration) -> &'static str {
        match queues.known(0, &LockKey::from("k"), began, began + later) {
            Known::Busy => "busy",
            Known::Failed(_) => "failed",
            Known::Asked(_) => "asked",
            Known::Nothing => "nothing",
        }
    }

    #[tokio::test(start_paused = true)]
    async fn busy_needs_an_answer_from_the_time_of_the_waiter() {
        let queues = Arc::new(LocalQueues::default());
        let front = queues.try_enter(0, &LockKey::from("k")).unwrap();
        let asked = clock::instant();
        front.note_request(asked, false);
        assert_eq!(told(&queues, asked, Duration::ZERO), "asked");
        front.note_answer(News::Busy);
        // The front waits for a change, and asks again before this is too old.
        assert_eq!(told(&queues, asked + HEARSAY / 2, Duration::ZERO), "busy");
        assert_eq!(told(&queues, asked + HEARSAY * 2, Duration::ZERO), "nothing");
        // It asks again: who began before the last answer has been told, who began after it has not.
        front.note_request(asked + HEARSAY, false);
        assert_eq!(told(&queues, asked, HEARSAY), "busy");
        assert_eq!(told(&queues, asked + HEARSAY / 2, HEARSAY / 2), "asked");
        front.note_answer(News::Failed(BackendError::transient("down")));
        assert_eq!(told(&queues, asked + HEARSAY, Duration::ZERO), "failed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_makes_the_key_busy_until_it_releases_it() {
        let queues = Arc::new(LocalQueues::default());
        let key = LockKey::from("k");
        let front = queues.try_enter(0, &key).unwrap();
        front.note_answer(News::Held(holder()));
        let began = clock::instant();
        assert_eq!(told(&queues, began, HEARSAY * 2), "busy");
        let next = behind(queues.enter(0, &key, None));
        front.note_release();
        assert_eq!(told(&queues, began, Duration::ZERO), "busy", "held until now");
        assert_eq!(told(&queues, began + HEARSAY, Duration::ZERO), "nothing");
        drop(front);
        drop(next.await.unwrap());
    }

    #[tokio::test]
    async fn a_cancelled_waiter_is_skipped_even_if_the_turn_was_already_sent_to_it() {
        let queues = Arc::new(LocalQueues::default());
        let key = LockKey::from("k");
        let front = queues.try_enter(0, &key).unwrap();
        let gone = behind(queues.enter(0, &key, None));
        let unread = behind(queues.enter(0, &key, None));
        let last = behind(queues.enter(0, &key, None));
        drop(gone);
        drop(front);
        drop(unread);
        drop(last.await.unwrap());
        assert_eq!(queues.len(), 0);
    }

    #[tokio::test]
    async fn cancelled_waiters_do_not_accumulate() {
        let queues = Arc::new(LocalQueues::default());
        let key = LockKey::from("k");
        let _front = queues.try_enter(0, &key).unwrap();
        for _ in 0..10_000 {
            drop(queues.enter(0, &key, None));
        }
        let mut queues = queues.lock();
        let waiters = queues.get(0, &key).unwrap().waiters.as_ref().unwrap();
        assert!(waiters.line.len() <= 2 * Waiters::MIN_SWEEP);
    }
}
