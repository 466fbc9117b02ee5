//! The interface between the engine and the stores that hold locks.
//!
//! A backend knows nothing about the engine (queues, renewal, reentrancy), and the engine knows
//! nothing about individual backends. To write a backend, implement [`AsyncBackend`] or
//! [`Backend`], and run the conformance suite of `dlock_runtime::testing` (feature `testing`).

use std::fmt;
use std::time::Duration;

use crate::error::BackendError;
use crate::key::LockKey;

mod answer;
mod answers;
mod async_backend;
mod attempt;
mod capabilities;
mod claim;
mod inspect;
mod pointers;
mod watch;

pub use answer::Answer;
pub use answers::Answers;
pub use async_backend::AsyncBackend;
pub use attempt::{Attempt, Release, Released, Renewal, SetAttempt};
pub use capabilities::Capabilities;
pub use claim::Claim;
pub use inspect::{Holder, LockState, ShownBy, Waiter};
pub use watch::Watch;

pub use crate::mode::Mode;
pub use crate::stores::*;

/// The maximum number of keys in a [list](Backend::list).
pub const MAX_LISTED: usize = 10_000;

/// The maximum number of claims that the engine puts into one request, such as a
/// [`renew_many`](Backend::renew_many).
pub const MAX_BATCH: usize = 256;

/// A store that grants leases.
///
/// # What an implementation promises
///
/// - **Exclusion.** Between a grant and its release or the end of its lease, no claim that the hold
///   excludes is granted the key. The lease lasts at least one ttl from the moment the request is
///   executed.
/// - **Idempotence.** A repeated request for the same [`Claim`] while it holds the key is granted again, with a full ttl
///   and the same token (of a [block](Claim::token_block) the last one), so a request whose reply was lost may be sent
///   again. A store of several nodes may answer a larger token that no other claim has had or will get. A repeated release
///   finds nothing held and changes nothing; the engine does not report that as a loss.
/// - **Only the owner** renews and releases; the check and the change are one atomic step.
/// - **Tokens** are drawn after the lock is won. Of two holds that exclude each other, the later one has
///   the larger token, see [`FencingToken`](crate::FencingToken).
/// - **Cancellation.** Every future may be dropped at any point, and the request may still be executed
///   after that. After a dropped or failed `try_acquire` or `acquire_queued` the engine sends a release with
///   [`Release::late_acquire`] set. From then on that claim must never be granted, whichever of the two
///   requests is executed first.
/// - **Answers in bounded time.** A store that hangs becomes a transient [`BackendError`].
pub trait Backend: Send + Sync + 'static {
    /// Returns the kind of store, as one lower-case word such as `redis`.
    fn kind(&self) -> &'static str;

    /// Returns what this backend supports.
    fn capabilities(&self) -> Capabilities;

    /// Tries once to acquire the key, without waiting for its holder.
    fn try_acquire<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>>;

    /// Tries once to acquire all of these keys or none of them, in one step.
    ///
    /// The claims are sorted by key, and there are at least two. Called only if [`Capabilities::atomic_sets`] is set;
    /// otherwise keys are acquired one after the other. The rules of [`try_acquire`](Self::try_acquire) apply to each
    /// claim.
    fn try_acquire_set<'a>(
        &'a self,
        claims: &'a [Claim],
    ) -> Answer<'a, Result<SetAttempt, BackendError>> {
        let _ = claims;
        Answer::ready(Err(async_backend::no_sets(self.kind())))
    }

    /// Tries once to acquire each of these keys, independently of the others.
    ///
    /// The claims are unrelated: each has its own answer, as if it had been sent alone with
    /// [`try_acquire`](Self::try_acquire), and all rules of that method apply to it. The request is not atomic, and
    /// the failure of one claim is not that of its neighbours. Two of the claims may want the same key.
    ///
    /// The default sends one request per claim, all at the same time. A store that can carry several claims in one
    /// request should override it.
    fn try_acquire_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Attempt> {
        Answers::each(claims, |claim| self.try_acquire(claim))
    }

    /// Joins the store's own queue and waits there until the key is granted.
    ///
    /// Called instead of [`try_acquire`](Self::try_acquire) and [`watch`](Self::watch) if [`Capabilities::queue`] is
    /// set and the caller has time to wait. If the wait ends in the queue, the engine drops this future and sends the
    /// same claim once more with `try_acquire`, to learn whether the key is busy. A claim that is sent again after a
    /// failure keeps its queue position. As always, the validity of a grant counts from before the request was made,
    /// however long it waited.
    fn acquire_queued<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        self.try_acquire(claim)
    }

    /// Renews a lease for a full ttl from now.
    fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>>;

    /// Renews each of these leases, independently of the others.
    ///
    /// The claims are unrelated, each has its own answer, and the request is not atomic; see
    /// [`try_acquire_many`](Self::try_acquire_many). The watchdog renews leases that are due together in one request,
    /// of at most [`MAX_BATCH`] claims. The validity of each counts from before the request was made.
    fn renew_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Renewal> {
        Answers::each(claims, |claim| self.renew(claim))
    }

    /// Releases a lease, at once or after [`Release::keep_for`].
    fn release<'a>(
        &'a self,
        claim: &'a Claim,
        release: Release,
    ) -> Answer<'a, Result<Released, BackendError>>;

    /// Releases each of these leases, independently of the others.
    ///
    /// The claims are unrelated, each has its own answer, and the request is not atomic; see
    /// [`try_acquire_many`](Self::try_acquire_many).
    fn release_many<'a>(&'a self, releases: &'a [(Claim, Release)]) -> Answers<'a, Released> {
        Answers::each(releases, |(claim, release)| self.release(claim, *release))
    }

    /// Starts to watch a key for changes that make a retry worthwhile.
    ///
    /// Once the answer is ready, [`Watch::changed`] must not miss a later release. The engine then
    /// retries once, so that a release before that moment is not missed either. A change is a hint: a
    /// false one costs a retry, a missed one delays the waiter until the safety-net poll.
    fn watch<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Box<dyn Watch>, BackendError>>;

    /// Starts to watch the key of a claim that was refused and will be sent again.
    ///
    /// The default calls [`watch`](Self::watch). A store that notifies waiters one by one overrides it to notify this
    /// claim alone, when it is its turn.
    fn watch_for<'a>(
        &'a self,
        claim: &'a Claim,
    ) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
        self.watch(&claim.key)
    }

    /// Returns the current holder of the key; one of them, if there are several.
    fn inspect<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Option<Holder>, BackendError>>;

    /// Lists the keys with this prefix that are held or waited for, for operators: sorted, at most [`MAX_LISTED`].
    ///
    /// The list is not a snapshot: each key is shown as it was at some moment during the call.
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Result<Vec<LockState>, BackendError>>;

    /// Ends the holds of the key safely, for operators. Returns whether there was one.
    ///
    /// From then on a renewal answers [`NotHeld`](Renewal::NotHeld), but no claim that the holds exclude is
    /// granted the key before they are released or their leases have ended.
    fn revoke<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>>;

    /// Frees the key at once, whoever holds it, for operators. Returns whether there was a hold.
    ///
    /// The holder notices the loss at its next renewal. The next grant has a larger token.
    fn force_release<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>>;
}

/// Returns the ttl less an allowance for the drift of two clocks: 1 % and 2 ms, the figures from the
/// Redlock specification.
#[must_use]
pub fn validity_of(ttl: Duration) -> Duration {
    ttl.saturating_sub(ttl / 100 + Duration::from_millis(2))
}

/// Returns the validity of a hold with this ttl, whose lease was requested for the ttl and a grace and got this validity:
/// what the store has deducted, but for the allowance for the drift during the grace, is deducted from the ttl.
pub(crate) fn without_grace(validity: Duration, ttl: Duration, grace: Duration) -> Duration {
    let deducted = (ttl + grace).saturating_sub(validity);
    ttl.saturating_sub(deducted.saturating_sub(grace / 100))
}

impl fmt::Debug for dyn Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.kind())
    }
}
