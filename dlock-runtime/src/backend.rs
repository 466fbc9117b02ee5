//! The one seam: what a store must be able to do so that locks can live in it.
//!
//! A backend knows nothing of the engine (queues, renewal, reentrancy), and the engine nothing of
//! any one backend. To write one, implement [`Backend`] and run the conformance suite of
//! `dlock_runtime::testing` (feature `testing`) against it.

use std::fmt;
use std::time::Duration;

use crate::error::BackendError;
use crate::key::LockKey;

mod answer;
mod async_backend;
mod attempt;
mod capabilities;
mod claim;
mod inspect;
mod pointers;
mod watch;

pub use answer::Answer;
pub use async_backend::AsyncBackend;
pub use attempt::{Attempt, Release, Released, Renewal, SetAttempt};
pub use capabilities::Capabilities;
pub use claim::Claim;
pub use inspect::{Holder, LockState, Waiter};
pub use watch::Watch;

pub use crate::mode::Mode;
pub use crate::stores::*;

/// How many keys a [list](Backend::list) has at most.
pub const MAX_LISTED: usize = 10_000;

/// A store that grants leases.
///
/// # What an implementation promises
///
/// - **Exclusion.** Between a grant and the end of its lease nobody else is granted the key. The
///   lease lasts at least the ttl from the moment the request is executed.
/// - **Idempotence.** The same [`Claim`] asked for again while it holds is granted again, with the
///   same token and a full ttl, so that a request whose reply was lost may be sent again. A release
///   sent again finds nothing held and changes nothing; the engine knows not to call that a loss.
/// - **Only the owner** renews and releases, in one atomic step with the comparison.
/// - **Tokens** are drawn after the lock is won and grow with every grant of a key, see
///   [`FencingToken`](crate::FencingToken).
/// - **Cancellation.** Every future may be dropped at any point. The request may then still be
///   executed; after a dropped or failed `try_acquire` or `acquire_queued` the engine sends a release with
///   [`Release::late_acquire`] set, after which that claim must never be granted, whichever of the
///   two is executed first.
/// - **Answers in bounded time.** A store that hangs becomes a transient [`BackendError`].
pub trait Backend: Send + Sync + 'static {
    /// What kind of store this is, in one lower-case word such as `redis`.
    fn kind(&self) -> &'static str;

    /// What this backend can honour.
    fn capabilities(&self) -> Capabilities;

    /// Tries once to take the key, without waiting for its holder.
    fn try_acquire<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>>;

    /// Tries once to take all of these keys, which stand in their order, or none of them, in one step.
    ///
    /// Called where [`Capabilities::atomic_sets`] says so, with at least two keys; elsewhere they are taken one
    /// after the other. What is said of [`try_acquire`](Self::try_acquire) holds for each of the claims.
    fn try_acquire_set<'a>(
        &'a self,
        claims: &'a [Claim],
    ) -> Answer<'a, Result<SetAttempt, BackendError>> {
        let _ = claims;
        Answer::ready(Err(async_backend::no_sets(self.kind())))
    }

    /// Takes the key in its turn: takes a place in the store's own queue and waits there.
    ///
    /// Called in the place of [`try_acquire`](Self::try_acquire) and [`watch`](Self::watch) where
    /// [`Capabilities::queue`] says so and the caller has time to wait. Asked for again after a failure,
    /// the same claim keeps its place. The validity of a grant counts from before the request was made,
    /// as always, however long it waited.
    fn acquire_queued<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        self.try_acquire(claim)
    }

    /// Extends a lease to a full ttl from now.
    fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>>;

    /// Gives a lease back, at once or after [`Release::keep_for`].
    fn release<'a>(
        &'a self,
        claim: &'a Claim,
        release: Release,
    ) -> Answer<'a, Result<Released, BackendError>>;

    /// Begins to watch a key for a change worth trying again for.
    ///
    /// When the answer is there, no later release may be missed by [`Watch::changed`]; the engine
    /// tries once more then, so that a release in between is not missed either. A change is a hint:
    /// false ones cost a try, missed ones a safety-net poll.
    fn watch<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Box<dyn Watch>, BackendError>>;

    /// Who holds the key at this moment; one of them, if several do.
    fn inspect<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Option<Holder>, BackendError>>;

    /// The keys that begin so and are held or waited for, in order, [`MAX_LISTED`] at most: for operators.
    ///
    /// It is no snapshot: each key is as it was at some moment of the call.
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Result<Vec<LockState>, BackendError>>;

    /// Ends the holds of the key without a danger to anybody: for operators. True if there was one.
    ///
    /// From here on they are [not held](Renewal::NotHeld) when they are to be renewed; but nobody else is
    /// granted the key before they are released or their leases are over.
    fn revoke<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>>;

    /// Ends the key's lease, whoever holds it: for operators. True if there was one.
    ///
    /// The holder learns it as a loss; the next grant's token is larger.
    fn force_release<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>>;
}

/// A lease's ttl less the allowance for the drift of two clocks: 1 % and 2 ms, the figures of the
/// Redlock description.
#[must_use]
pub fn validity_of(ttl: Duration) -> Duration {
    ttl.saturating_sub(ttl / 100 + Duration::from_millis(2))
}

impl fmt::Debug for dyn Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.kind())
    }
}
