//! Structured reentrancy: a call nested in a body shares the hold of that body.
//!
//! The bodies that are being polled form a chain, innermost first, in a thread-local. It is set only
//! while a body is polled, so a spawned task inherits nothing. Each link admits one nested call at a
//! time (readers excepted), so two branches of a `join!` under one hold still exclude each other.

use std::cell::RefCell;
use std::sync::Arc;
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
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::timer;

thread_local! {
    /// The innermost body that is being polled on this thread.
    static INNERMOST: RefCell<Option<Arc<Inside>>> = const { RefCell::new(None) };
}

fn innermost() -> Option<Arc<Inside>> {
    // Nothing is left to nest in while a thread is being destroyed.
    INNERMOST.try_with(|innermost| innermost.borrow().clone()).ok().flatten()
}

fn swap_innermost(other: &mut Option<Arc<Inside>>) {
    // Nothing is left to nest in while a thread is being destroyed.
    let _ = INNERMOST.try_with(|innermost| std::mem::swap(&mut *innermost.borrow_mut(), other));
}

/// A lock that the code being polled holds.
#[cfg(any(debug_assertions, feature = "lockdep"))]
pub(super) struct Held {
    pub(super) backend: usize,
    pub(super) template: &'static str,
    pub(super) key: LockKey,
}

/// The locks of this engine under which the code being polled runs, the innermost first.
#[cfg(any(debug_assertions, feature = "lockdep"))]
pub(super) fn held_by_this_task(engine: &Arc<Engine>) -> Vec<Held> {
    let innermost = innermost();
    let links = std::iter::successors(innermost.as_ref(), |inside| inside.outer.as_ref());
    let held = links.filter(|inside| {
        // A nested call shares the hold of an outer link, which is listed itself.
        inside.under.is_none()
            && !inside.closed.load(Ordering::Acquire)
            && Arc::ptr_eq(&inside.hold.engine, engine)
    });
    held.map(|inside| &*inside.hold)
        .map(|hold| Held {
            backend: hold.backend().index,
            template: hold.template,
            key: hold.claim.key.clone(),
        })
        .collect()
}

/// All permits of an entrance. A nested call that is not a reader takes them all.
const ALL_PERMITS: u32 = 1 << 20;

/// Returns true if a hold of mode `held` admits a nested call of mode `wanted`. A writer may read. A reader may
/// not write, and neither a reader nor a permit holder has exclusive access.
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
    /// The mode of this body. A body that entered as a reader runs beside other readers, even if an outer body holds
    /// the key exclusively.
    mode: Mode,
    /// Admits nested calls. A reader takes one permit, any other call takes all of them.
    entrance: Semaphore,
    /// Set when the body has ended. A nested call that entered under it and is still polled, because its future was
    /// kept elsewhere, then ends.
    closed: AtomicBool,
    /// The body whose hold this one shares, if it has no lease of its own.
    under: Option<Arc<Inside>>,
    /// The enclosing body, whatever its key.
    outer: Option<Arc<Inside>>,
}

/// The links that one body adds to the chain, one per lock. Dropping it closes them, so that nothing is inside
/// when the locks are released.
#[derive(Debug)]
pub(crate) struct Enclosure {
    innermost: Option<Arc<Inside>>,
    links: usize,
}

impl Enclosure {
    /// Creates the links for a body under these guards. They extend the chain of the body being polled, if any.
    pub(crate) fn new(guards: &[LockGuard]) -> Self {
        let outer = innermost();
        let innermost = guards.iter().fold(outer, |outer, guard| {
            Some(Arc::new(Inside {
                hold: Arc::clone(guard.hold()),
                mode: guard.mode(),
                entrance: Semaphore::new(ALL_PERMITS as usize),
                closed: AtomicBool::new(false),
                under: guard.entered_under().map(Arc::clone),
                outer,
            }))
        });
        Self { innermost, links: guards.len() }
    }

    /// Polls inside this body.
    pub(crate) fn scope<R>(&mut self, poll: impl FnOnce() -> R) -> R {
        /// Restores both when the poll is over, also if it panics.
        struct Swapped<'a>(&'a mut Option<Arc<Inside>>);

        impl Drop for Swapped<'_> {
            fn drop(&mut self) {
                swap_innermost(self.0);
            }
        }

        if self.innermost.is_none() {
            return poll();
        }
        swap_innermost(&mut self.innermost);
        let _swapped = Swapped(&mut self.innermost);
        poll()
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        let mut link = self.innermost.as_ref();
        for _ in 0..self.links {
            let Some(inside) = link else { return };
            inside.closed.store(true, Ordering::Release);
            // Whoever nests in this body refers to it, and nobody can begin to once it has ended.
            if Arc::strong_count(inside) > 1 {
                inside.hold.notify();
            }
            link = inside.outer.as_ref();
        }
    }
}

impl Inside {
    /// Returns true if the code being polled runs under a valid hold of the key. With `shared`, a hold that is
    /// not exclusive is enough.
    pub(crate) fn holds(key: &LockKey, shared: bool) -> bool {
        let inside = Self::nearest(|hold| hold.claim.key == *key);
        inside.is_some_and(|inside| {
            let exclusive = inside.mode == Mode::Exclusive;
            (exclusive || shared) && inside.check().is_ok()
        })
    }

    /// Returns the nearest enclosing body of this task that runs under a hold of the requested lock.
    pub(super) fn around(engine: &Arc<Engine>, request: &Request<'_>) -> Option<Arc<Self>> {
        Self::nearest(|hold| {
            Arc::ptr_eq(&hold.engine, engine)
                && hold.backend().index == request.backend.index
                && hold.claim.key == request.key
        })
    }

    /// Returns the nearest open enclosing body whose hold matches. A body that has ended is skipped: code that
    /// outlives it either holds its own locks or is stopped before it is polled again.
    fn nearest(matches: impl Fn(&Hold) -> bool) -> Option<Arc<Self>> {
        let innermost = INNERMOST.try_with(|innermost| innermost.borrow().clone()).ok()?;
        let mut link = innermost.as_ref();
        while let Some(inside) = link {
            if matches(&inside.hold) && !inside.closed.load(Ordering::Acquire) {
                return Some(Arc::clone(inside));
            }
            link = inside.outer.as_ref();
        }
        None
    }

    /// Returns true if this body has ended, or one whose hold it shares.
    fn is_closed(&self) -> bool {
        let mut link = Some(self);
        while let Some(inside) = link {
            if inside.closed.load(Ordering::Acquire) {
                return true;
            }
            link = inside.under.as_deref();
        }
        false
    }

    /// Checks that the lock is held and that every body this one entered under is still running.
    fn check(&self) -> Result<(), Ending> {
        if self.is_closed() {
            Err(Ending::Lost(LostReason::OuterClosed))
        } else {
            self.hold.check()
        }
    }

    /// Resolves when the hold ends, or a body that this one entered under.
    async fn ended(&self) -> Ending {
        loop {
            let changed = self.hold.changed();
            if let Err(ending) = self.check() {
                return ending;
            }
            changed.await;
        }
    }

    /// Enters under this body's hold, and waits for siblings that exclude this call.
    pub(super) async fn enter(self: Arc<Self>, request: &Request<'_>) -> Result<Nested, LockError> {
        if !covers(self.mode, request.options.mode) {
            // Waiting would never end, because the enclosing body cannot end before this call does.
            return Err(LockError::Upgrade { key: request.key.clone() });
        }
        let deadline = Deadline::new(request.wait);
        let permits = if request.options.mode == Mode::Shared { 1 } else { ALL_PERMITS };
        let refused = |ending| self.hold.error(ending, false);
        self.check().map_err(refused)?;
        let permit = if let Ok(permit) = self.entrance.try_acquire_many(permits) {
            permit
        } else {
            let busy = || deadline.busy(request, HeldBy::ThisProcess);
            let entering = async {
                tokio::select! {
                    biased;
                    ending = self.ended() => Err(refused(ending)),
                    permit = self.entrance.acquire_many(permits) => permit.map_err(|_| busy()),
                }
            };
            deadline.bound(entering).await.unwrap_or_else(|| Err(busy()))?
        };
        permit.forget();
        let limit = request.options.max_hold.map(|limit| (Moment::now(), limit));
        let mode =
            if request.options.mode == Mode::Shared { request.options.mode } else { self.mode };
        let nested = Nested { inside: Arc::clone(&self), mode, permits, limit };
        self.check().map_err(refused)?;
        if let Some(min_hold) = request.options.min_hold {
            self.hold.keep_at_least(min_hold);
        }
        Ok(nested)
    }
}

/// A nested call that has entered. Dropping it admits the next sibling.
#[derive(Debug)]
pub(crate) struct Nested {
    inside: Arc<Inside>,
    mode: Mode,
    permits: u32,
    /// The nested call's own `max_hold`, and when it entered.
    limit: Option<(Moment, Duration)>,
}

impl Nested {
    pub(crate) fn hold(&self) -> &Arc<Hold> {
        &self.inside.hold
    }

    /// The mode in which it holds the key.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The body whose hold it shares.
    pub(crate) fn entered_under(&self) -> &Arc<Inside> {
        &self.inside
    }

    /// Checks that the lock is held, the outer body is still running, and its own `max_hold` has not passed.
    pub(crate) fn check(&self) -> Result<(), Ending> {
        self.check_outer()?;
        match self.limit {
            Some((_, limit)) if self.is_overdue() => Err(Ending::HeldTooLong(limit)),
            _ => Ok(()),
        }
    }

    /// Like [`check`](Self::check), but ignores its own `max_hold`.
    pub(crate) fn check_outer(&self) -> Result<(), Ending> {
        self.inside.check()
    }

    /// Resolves when [`check`](Self::check) would fail.
    pub(crate) async fn ended(&self) -> Ending {
        match self.limit {
            None => self.inside.ended().await,
            Some((since, limit)) => {
                let ended = timer::timeout_at(since.after(limit), self.inside.ended());
                ended.await.unwrap_or(Ending::HeldTooLong(limit))
            }
        }
    }

    /// Returns true if its own `max_hold` has passed.
    pub(crate) fn is_overdue(&self) -> bool {
        self.limit.is_some_and(|(since, limit)| since.elapsed() >= limit)
    }

    /// The instant at which its own `max_hold` passes.
    pub(crate) fn overdue_at(&self) -> Option<Instant> {
        self.limit.map(|(since, limit)| since.after(limit))
    }

    /// Returns true if the body it entered under has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.inside.is_closed()
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        self.inside.entrance.add_permits(self.permits as usize);
    }
}
