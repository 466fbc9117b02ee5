//! Counts the holds of an engine, so that a shutdown can wait for them.

use crate::sync::Notify;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// The number of holds that have not been released.
#[derive(Debug, Default)]
pub(crate) struct OpenHolds {
    /// With `AWAITED` added once somebody has waited. In one atomic: either the last removal sees that it is awaited, or
    /// the waiter sees that none is left.
    open: AtomicUsize,
    none_left: Notify,
}

const AWAITED: usize = 1 << (usize::BITS - 1);

impl OpenHolds {
    pub(crate) fn add(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == AWAITED + 1 {
            self.none_left.notify_waiters();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.open.load(Ordering::Acquire) & !AWAITED
    }

    /// Resolves when there is none. Cancel safe.
    pub(crate) async fn none_left(&self) {
        loop {
            let none_left = self.none_left.notified();
            if self.open.fetch_or(AWAITED, Ordering::AcqRel) & !AWAITED == 0 {
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
