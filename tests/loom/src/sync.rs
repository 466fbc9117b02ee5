//! The primitives that the engine imports from its own `sync`, made of loom's.

mod notify;
pub(crate) mod oneshot;

use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Nobody would run them.
pub(crate) const HAS_BACKGROUND: bool = false;

pub(crate) use loom::sync::{Mutex, MutexGuard};

pub(crate) use self::notify::{Notified, Notify};

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

    pub(crate) use super::AtomicBool;
}

/// Loom's, with a `get_mut`.
#[derive(Debug)]
pub(crate) struct AtomicBool(loom::sync::atomic::AtomicBool);

impl AtomicBool {
    pub(crate) fn new(value: bool) -> Self {
        Self(loom::sync::atomic::AtomicBool::new(value))
    }

    pub(crate) fn load(&self, order: atomic::Ordering) -> bool {
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: bool, order: atomic::Ordering) {
        self.0.store(value, order);
    }

    pub(crate) fn swap(&self, value: bool, order: atomic::Ordering) -> bool {
        self.0.swap(value, order)
    }

    /// Whoever has a reference of its own to the value has seen every change of it. Loom does not know the `Arc` that
    /// ensures this, so the latest value is read in a way that never returns an older one.
    pub(crate) fn get_mut(&mut self) -> impl Deref<Target = bool> {
        Box::new(self.0.fetch_or(false, atomic::Ordering::Relaxed))
    }
}

/// Polls the future on this thread of a model until it is ready. Loom reports a deadlock if nothing wakes it.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let parked = Arc::new(Parked(loom::sync::Notify::new()));
    let waker = Waker::from(Arc::clone(&parked));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        parked.0.wait();
    }
}

struct Parked(loom::sync::Notify);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}
