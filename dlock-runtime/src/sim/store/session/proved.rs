//! The process's session, as its own clock proves it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{SessionId, Stamp};
use crate::clock::Moment;
use crate::stores::shared::proofs::Proofs;

/// One session of a process.
#[derive(Debug)]
pub(super) struct Proved {
    id: SessionId,
    pub(super) timeout: Duration,
    proofs: Mutex<Proofs>,
    /// Set when an answer says that it has ended, or when nothing needs it.
    is_closed: AtomicBool,
    /// The number of the last request.
    last: AtomicU64,
}

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The follower, alone.
    Follower,
    /// The leader has committed it.
    Leader,
}

impl Proved {
    /// A session that was requested at this moment.
    pub(super) fn new(id: SessionId, timeout: Duration, asked: Moment) -> Self {
        let proofs = Mutex::new(Proofs::new(timeout, asked));
        Self { id, timeout, proofs, is_closed: AtomicBool::new(false), last: AtomicU64::new(0) }
    }

    /// Numbers a request that is about to be sent.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { session: self.id, number: self.last.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    pub(super) fn lives(&self) -> bool {
        !self.is_closed.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// A request that was sent at this moment has been answered.
    pub(super) fn answered(&self, sent: Moment, by: By) {
        match by {
            By::Follower => self.proofs().touched(sent),
            By::Leader => self.proofs().wrote(sent),
        }
    }

    /// How long it provably lasts from now.
    pub(super) fn remaining(&self) -> Duration {
        self.proofs().remaining()
    }

    /// How long it provably lasts, counted from this moment.
    pub(super) fn lasts_from(&self, began: Moment) -> Duration {
        Moment::now().since(&began) + self.remaining()
    }

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
