//! Structured reentrancy: a call nested in a body enters under the hold of that body.
//!
//! The bodies that are being polled form a chain, innermost first, in a task-local. It is set only
//! while a body is polled, so a spawned task inherits nothing. Each link lets one nested call in at a
//! time: two branches of a `join!` under one hold still exclude each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Engine;
use super::deadline::Deadline;
use super::hold::{Ending, Hold};
use super::request::Request;
use crate::backend::Mode;
use crate::clock::Moment;
use crate::error::{HeldBy, LockError, LostReason};
use crate::guard::LockGuard;
use crate::key::LockKey;

tokio::task_local! {
    static INNERMOST: Arc<Inside>;
}

/// So many permits has an entrance; what one nested call takes that shares with no other.
const ALONE: u32 = 1 << 20;

/// Is a hold of the one kind good for a call of the other kind? A writer may read; a reader may not write,
/// nor has one of several holders the key for itself.
fn covers(held: Mode, wanted: Mode) -> bool {
    match (held, wanted) {
        (Mode::Exclusive, _)
        | (Mode::Shared, Mode::Shared)
        | (Mode::Permits(_), Mode::Permits(_)) => true,
        (Mode::Shared | Mode::Permits(_), _) => false,
    }
}

/// One body that is running under a hold.
#[derive(Debug)]
pub(crate) struct Inside {
    hold: Arc<Hold>,
    /// As what this body holds it: one that entered as a reader has other readers beside it, also where an
    /// outer body holds the key alone.
    mode: Mode,
    /// All of its permits: the nested call that is inside. Of calls that share the key each takes one.
    entrance: Semaphore,
    /// The body has ended. What had entered under it and is still polled, because it was kept outside, ends.
    closed: AtomicBool,
    /// The body that this one has entered under, if it holds no lease of its own.
    under: Option<Arc<Inside>>,
    /// The body around this one, whatever its key.
    outer: Option<Arc<Inside>>,
}

/// The links that one body adds to the chain, one for each of its locks. Dropping it closes them: before the
/// locks are released nothing is inside any more.
#[derive(Debug)]
pub(crate) struct Enclosure {
    innermost: Option<Arc<Inside>>,
    links: usize,
}

impl Enclosure {
    /// A body under these guards, within the body that is being polled now, if any.
    pub(crate) fn new(guards: &[LockGuard]) -> Self {
        let outer = INNERMOST.try_with(Arc::clone).ok();
        let innermost = guards.iter().fold(outer, |outer, guard| {
            Some(Arc::new(Inside {
                hold: Arc::clone(guard.hold()),
                mode: guard.mode(),
                entrance: Semaphore::new(ALONE as usize),
                closed: AtomicBool::new(false),
                under: guard.entered_under().map(Arc::clone),
                outer,
            }))
        });
        Self { innermost, links: guards.len() }
    }

    /// Polls within this body.
    pub(crate) fn scope<R>(&self, poll: impl FnOnce() -> R) -> R {
        match &self.innermost {
            Some(innermost) => INNERMOST.sync_scope(Arc::clone(innermost), poll),
            None => poll(),
        }
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        let mut link = self.innermost.as_ref();
        for _ in 0..self.links {
            let Some(inside) = link else { return };
            inside.closed.store(true, Ordering::SeqCst);
            inside.hold.notify();
            link = inside.outer.as_ref();
        }
    }
}

impl Inside {
    /// Does this task hold the key at this moment, around what it is polling? Together with others only if
    /// that is enough.
    pub(crate) fn holds(key: &LockKey, shared: bool) -> bool {
        let inside = Self::nearest(|hold| hold.claim.key == *key);
        inside.is_some_and(|inside| {
            let alone = inside.mode == Mode::Exclusive;
            (alone || shared) && inside.check().is_ok()
        })
    }

    /// The nearest enclosing body of this task that runs under a hold of this very lock.
    pub(super) fn around(engine: &Arc<Engine>, request: &Request) -> Option<Arc<Self>> {
        Self::nearest(|hold| {
            Arc::ptr_eq(&hold.engine, engine)
                && hold.backend.index == request.backend.index
                && hold.claim.key == request.key
        })
    }

    /// The nearest enclosing body under such a hold. A body that has ended encloses nothing: what goes on after it
    /// holds locks of its own, or is stopped before it is polled again.
    fn nearest(is_meant: impl Fn(&Hold) -> bool) -> Option<Arc<Self>> {
        let innermost = INNERMOST.try_with(Arc::clone).ok()?;
        let mut link = Some(&innermost);
        while let Some(inside) = link {
            if is_meant(&inside.hold) && !inside.closed.load(Ordering::SeqCst) {
                return Some(Arc::clone(inside));
            }
            link = inside.outer.as_ref();
        }
        None
    }

    /// Has this body ended, or one that it entered under?
    fn is_closed(&self) -> bool {
        let mut link = Some(self);
        while let Some(inside) = link {
            if inside.closed.load(Ordering::SeqCst) {
                return true;
            }
            link = inside.under.as_deref();
        }
        false
    }

    /// Is the lock held, and every body open that this one runs under?
    fn check(&self) -> Result<(), Ending> {
        if self.is_closed() {
            Err(Ending::Lost(LostReason::OuterClosed))
        } else {
            self.hold.check()
        }
    }

    /// Resolves when the hold ends, or the body under which it is held.
    async fn ended(&self) -> Ending {
        loop {
            let changed = self.hold.changed();
            if let Err(ending) = self.check() {
                return ending;
            }
            changed.await;
        }
    }

    /// Enters under this body's hold, after the sibling that is inside.
    pub(super) async fn enter(self: Arc<Self>, request: &Request) -> Result<Nested, LockError> {
        if !covers(self.mode, request.mode) {
            // Waiting would be for ever: the enclosing body cannot end before this call does.
            return Err(LockError::Upgrade { key: request.key.clone() });
        }
        let deadline = Deadline::new(request.wait);
        let taken = if request.mode == Mode::Shared { 1 } else { ALONE };
        let refused = |ending| self.hold.error(ending, false);
        self.check().map_err(refused)?;
        let permit = if let Ok(permit) = self.entrance.try_acquire_many(taken) {
            permit
        } else {
            let busy = || deadline.busy(request, HeldBy::ThisProcess);
            let entering = async {
                tokio::select! {
                    biased;
                    ending = self.ended() => Err(refused(ending)),
                    permit = self.entrance.acquire_many(taken) => permit.map_err(|_| busy()),
                }
            };
            deadline.bound(entering).await.unwrap_or_else(|| Err(busy()))?
        };
        permit.forget();
        let bound = request.max_hold.map(|limit| (Moment::now(), limit));
        let mode = if request.mode == Mode::Shared { request.mode } else { self.mode };
        let nested = Nested { inside: Arc::clone(&self), mode, taken, bound };
        self.check().map_err(refused)?;
        if let Some(min_hold) = request.min_hold {
            self.hold.keep_at_least(min_hold);
        }
        Ok(nested)
    }
}

/// A nested call's right to be inside; dropping it lets the next sibling in.
#[derive(Debug)]
pub(crate) struct Nested {
    inside: Arc<Inside>,
    mode: Mode,
    taken: u32,
    /// The nested call's own `max_hold`, from its own entry.
    bound: Option<(Moment, Duration)>,
}

impl Nested {
    pub(crate) fn hold(&self) -> &Arc<Hold> {
        &self.inside.hold
    }

    /// As what it holds the key.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The body it entered under.
    pub(crate) fn entered_under(&self) -> &Arc<Inside> {
        &self.inside
    }

    /// Is the lock held, the body open that it entered under, and its own bound not passed?
    pub(crate) fn check(&self) -> Result<(), Ending> {
        self.check_outer()?;
        match self.bound {
            Some((_, limit)) if self.is_overdue() => Err(Ending::HeldTooLong(limit)),
            _ => Ok(()),
        }
    }

    /// As [`check`](Self::check), whatever its own bound.
    pub(crate) fn check_outer(&self) -> Result<(), Ending> {
        self.inside.check()
    }

    /// Resolves when [`check`](Self::check) would fail.
    pub(crate) async fn ended(&self) -> Ending {
        match self.bound {
            None => self.inside.ended().await,
            Some((since, limit)) => {
                let bound = tokio::time::timeout_at(since.after(limit), self.inside.ended());
                bound.await.unwrap_or(Ending::HeldTooLong(limit))
            }
        }
    }

    /// Has its own bound passed?
    pub(crate) fn is_overdue(&self) -> bool {
        self.bound.is_some_and(|(since, limit)| since.elapsed() >= limit)
    }

    /// When its own bound will have passed.
    pub(crate) fn overdue_at(&self) -> Option<Instant> {
        self.bound.map(|(since, limit)| since.after(limit))
    }

    /// Has the body ended that it entered under?
    pub(crate) fn is_closed(&self) -> bool {
        self.inside.is_closed()
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        self.inside.entrance.add_permits(self.taken as usize);
    }
}
