//! `Notify` with the semantics that tokio documents.
//!
//! A `notified()` receives every `notify_waiters` from its creation on, but a `notify_one` only once it has been polled;
//! a `notify_one` that finds nobody waiting leaves one permit. As in tokio, creating a `Notified` is one atomic load, so
//! it does not order what the thread does around it any more than that.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Notify {
    /// How often `notify_waiters` was called. Changed only under the lock.
    calls: AtomicUsize,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    permit: bool,
    line: VecDeque<(usize, Waker)>,
    /// Those that a `notify_one` has chosen, until they are polled.
    chosen: Vec<usize>,
    next: usize,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified { notify: self, seen: self.calls.load(Ordering::Acquire), place: None }
    }

    pub(crate) fn notify_waiters(&self) {
        let mut waiters = self.waiters.lock().unwrap();
        self.calls.fetch_add(1, Ordering::AcqRel);
        let woken = std::mem::take(&mut waiters.line);
        drop(waiters);
        for (_, waker) in woken {
            waker.wake();
        }
    }

    pub(crate) fn notify_one(&self) {
        let mut waiters = self.waiters.lock().unwrap();
        let Some((chosen, waker)) = waiters.line.pop_front() else {
            waiters.permit = true;
            return;
        };
        waiters.chosen.push(chosen);
        drop(waiters);
        waker.wake();
    }
}

#[derive(Debug)]
pub(crate) struct Notified<'a> {
    notify: &'a Notify,
    seen: usize,
    /// Its place in line, once it has been polled.
    place: Option<usize>,
}

impl Waiters {
    /// Returns true if a `notify_one` has chosen this one.
    fn leave(&mut self, place: usize) -> bool {
        self.line.retain(|(other, _)| *other != place);
        let before = self.chosen.len();
        self.chosen.retain(|other| *other != place);
        self.chosen.len() < before
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let notify = self.notify;
        let mut waiters = notify.waiters.lock().unwrap();
        let chosen = match self.place.take() {
            Some(place) => waiters.leave(place),
            None => std::mem::take(&mut waiters.permit),
        };
        if chosen || notify.calls.load(Ordering::Acquire) != self.seen {
            return Poll::Ready(());
        }
        let place = waiters.next;
        waiters.next += 1;
        waiters.line.push_back((place, cx.waker().clone()));
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let chosen = self.notify.waiters.lock().unwrap().leave(place);
        // It was told, and did not hear it.
        if chosen {
            self.notify.notify_one();
        }
    }
}
