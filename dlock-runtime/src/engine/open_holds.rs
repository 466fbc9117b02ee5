//! Counts the holds of an engine, so that a shutdown can wait for them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The number of holds that have not been released.
#[derive(Debug, Default)]
pub(crate) struct OpenHolds {
    open: AtomicUsize,
    is_awaited: AtomicBool,
    none_left: Notify,
}

impl OpenHolds {
    pub(crate) fn add(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn remove(&self) {
        let left = self.open.fetch_sub(1, Ordering::SeqCst) - 1;
        // Either this sees that somebody waits, or the waiter sees that none is left.
        if left == 0 && self.is_awaited.load(Ordering::SeqCst) {
            self.none_left.notify_waiters();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Resolves when there is none. Cancel safe.
    pub(crate) async fn none_left(&self) {
        self.is_awaited.store(true, Ordering::SeqCst);
        loop {
            let none_left = self.none_left.notified();
            if self.len() == 0 {
                return;
            }
            none_left.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_shutdown_waits_for_the_last_hold() {
        let holds = OpenHolds::default();
        holds.add();
        holds.add();
        let mut none_left = pin!(holds.none_left());
        assert!(futures_util::poll!(none_left.as_mut()).is_pending());
        holds.remove();
        assert!(futures_util::poll!(none_left.as_mut()).is_pending());
        holds.remove();
        assert!(futures_util::poll!(none_left).is_ready());
    }
}
