//! Structured reentrancy: a call nested in a body enters under the hold of that body.
//!
//! The bodies that are being polled form a chain, innermost first, in a task-local. It is set only
//! while a body is polled, so a spawned task inherits nothing. Each link lets one nested call in at a
//! time: two branches of a `join!` under one hold still exclude each other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::acquire::Deadline;
use super::enter::Want;
use super::hold::{Ending, Hold};
use crate::backend::Sharing;
use crate::clock::Moment;
use crate::error::{LockError, Whereabouts};
use crate::key::LockKey;
use crate::registry::RegistryInner;

tokio::task_local! {
    static INNERMOST: Arc<Inside>;
}

/// So many permits has an entrance; what one nested call takes that shares with no other.
const ALONE: u32 = 1 << 20;

/// Is a hold of the one kind good for a call of the other kind? A writer may read; a reader may not write,
/// nor has one of several holders the key for itself.
fn covers(held: Sharing, wanted: Sharing) -> bool {
    match (held, wanted) {
        (Sharing::Exclusive, _)
        | (Sharing::Shared, Sharing::Shared)
        | (Sharing::Permits(_), Sharing::Permits(_)) => true,
        (Sharing::Shared | Sharing::Permits(_), _) => false,
    }
}

/// One body that is running under a hold.
#[derive(Debug)]
pub(crate) struct Inside {
    hold: Arc<Hold>,
    /// As what this body holds it: one that entered as a reader has other readers beside it, also where an
    /// outer body holds the key alone.
    sharing: Sharing,
    /// All of its permits: the nested call that is inside. Of calls that share the key each takes one.
    entrance: Semaphore,
    outer: Option<Arc<Inside>>,
}

impl Inside {
    /// A body under these holds, within the body that is being polled now, if any.
    pub(crate) fn new<'a>(
        holds: impl Iterator<Item = (&'a Arc<Hold>, Sharing)>,
    ) -> Option<Arc<Self>> {
        let outer = INNERMOST.try_with(Arc::clone).ok();
        holds.fold(outer, |outer, (hold, sharing)| {
            let (hold, entrance) = (Arc::clone(hold), Semaphore::new(ALONE as usize));
            Some(Arc::new(Self { hold, sharing, entrance, outer }))
        })
    }

    /// Does this task hold the key at this moment, around what it is polling? Together with others only if
    /// that is enough.
    pub(crate) fn holds(key: &LockKey, shared: bool) -> bool {
        let Ok(innermost) = INNERMOST.try_with(Arc::clone) else { return false };
        let mut link = Some(&innermost);
        while let Some(Self { hold, sharing, outer, .. }) = link.map(|inside| &**inside) {
            if hold.claim.key == *key {
                let alone = *sharing == Sharing::Exclusive;
                return (alone || shared) && hold.check().is_ok();
            }
            link = outer.as_ref();
        }
        false
    }

    /// Polls within this body.
    pub(crate) fn scope<R>(self: &Arc<Self>, poll: impl FnOnce() -> R) -> R {
        INNERMOST.sync_scope(Arc::clone(self), poll)
    }

    /// The nearest enclosing body of this task that runs under a hold of this very lock.
    pub(super) fn around(registry: &Arc<RegistryInner>, want: &Want) -> Option<Arc<Self>> {
        let innermost = INNERMOST.try_with(Arc::clone).ok()?;
        let mut link = Some(&innermost);
        while let Some(inside) = link {
            let hold = &inside.hold;
            if Arc::ptr_eq(&hold.registry, registry)
                && hold.backend.index == want.backend.index
                && hold.claim.key == want.key
            {
                return Some(Arc::clone(inside));
            }
            link = inside.outer.as_ref();
        }
        None
    }

    /// Enters under this body's hold, after the sibling that is inside.
    pub(super) async fn enter(self: Arc<Self>, want: &Want) -> Result<Nested, LockError> {
        if !covers(self.sharing, want.sharing) {
            // Waiting would be for ever: the enclosing body cannot end before this call does.
            return Err(LockError::Upgrade { key: want.key.clone() });
        }
        let deadline = Deadline::new(want.wait);
        let taken = if want.sharing == Sharing::Shared { 1 } else { ALONE };
        let permit = match self.entrance.try_acquire_many(taken) {
            Ok(permit) => permit,
            Err(_) => deadline
                .bound(self.entrance.acquire_many(taken))
                .await
                .and_then(Result::ok)
                .ok_or_else(|| deadline.busy(want, Whereabouts::ThisProcess))?,
        };
        permit.forget();
        let bound = want.max_hold.map(|limit| (Moment::now(), limit));
        let sharing = if want.sharing == Sharing::Shared { want.sharing } else { self.sharing };
        let nested = Nested { inside: Arc::clone(&self), sharing, taken, bound };
        self.hold.check().map_err(|ending| self.hold.error(ending, false))?;
        if let Some(min_hold) = want.min_hold {
            self.hold.keep_at_least(min_hold);
        }
        Ok(nested)
    }
}

/// A nested call's right to be inside; dropping it lets the next sibling in.
#[derive(Debug)]
pub(crate) struct Nested {
    inside: Arc<Inside>,
    sharing: Sharing,
    taken: u32,
    /// The nested call's own `max_hold`, from its own entry.
    bound: Option<(Moment, Duration)>,
}

impl Nested {
    pub(crate) fn hold(&self) -> &Arc<Hold> {
        &self.inside.hold
    }

    /// As what it holds the key.
    pub(crate) fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// As [`Hold::check`], and within the nested call's own bound.
    pub(crate) fn check(&self) -> Result<(), Ending> {
        self.hold().check()?;
        match self.bound {
            Some((since, limit)) if since.elapsed() >= limit => Err(Ending::HeldTooLong(limit)),
            _ => Ok(()),
        }
    }

    /// As [`Hold::ended`], and when the nested call's own bound has passed.
    pub(crate) async fn ended(&self) -> Ending {
        match self.bound {
            None => self.hold().ended().await,
            Some((since, limit)) => {
                let bound = tokio::time::timeout_at(since.after(limit), self.hold().ended());
                bound.await.unwrap_or(Ending::HeldTooLong(limit))
            }
        }
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        self.inside.entrance.add_permits(self.taken as usize);
    }
}
