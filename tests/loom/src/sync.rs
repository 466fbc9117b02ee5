//! The primitives that the engine imports from its own `sync`, made of loom's.

mod notify;
pub(crate) mod oneshot;

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Nobody would run them.
pub(crate) const HAS_BACKGROUND: bool = false;

pub(crate) use loom::sync::{Mutex, MutexGuard};

pub(crate) use self::notify::{Notified, Notify};

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
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
