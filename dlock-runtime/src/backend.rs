//! The one seam: what a store must be able to do so that locks can live in it.
//!
//! A backend knows nothing of the engine (queues, renewal, reentrancy), and the engine nothing of
//! any one backend. To write one, implement [`Backend`] and run the conformance suite of
//! `dlock_runtime::testing` (feature `testing`) against it.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::claimant::Claimant;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::token::FencingToken;

#[cfg(any(
    feature = "sqlite",
    feature = "redis",
    feature = "postgres",
    feature = "mysql",
    feature = "zookeeper",
    feature = "etcd"
))]
mod by_async_methods;
mod capabilities;
#[cfg(any(feature = "redis", feature = "postgres", feature = "mysql"))]
pub(crate) mod doubt;
mod entry;
#[cfg(feature = "etcd")]
pub mod etcd;
mod given_up;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod lock_row;
mod memory;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
mod outage;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "redis")]
pub mod redlock;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
mod room;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
mod single_flight;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
mod standing;
mod state;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod sweeping;
#[cfg(any(feature = "redis", feature = "postgres"))]
mod topics;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
mod url_options;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

pub use capabilities::Capabilities;
pub(crate) use capabilities::OF_KINDS;
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
pub use memory::Memory;
#[cfg(feature = "mysql")]
pub use mysql::MySql;
#[cfg(feature = "postgres")]
pub use postgres::Postgres;
#[cfg(feature = "redis")]
pub use redis::Redis;
#[cfg(feature = "redis")]
pub use redlock::Redlock;
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
pub use state::{Holder, LockState, Waiter};
#[cfg(feature = "zookeeper")]
pub use zookeeper::ZooKeeper;

/// How many keys a [list](Backend::list) has at most.
pub const MOST_LISTED: usize = 10_000;

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
///   [`FencingToken`].
/// - **Cancellation.** Every future may be dropped at any point. The request may then still be
///   executed; after a dropped or failed `try_acquire` or `acquire_in_turn` the engine sends a release with
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
        let problem = format!("{} takes one key at a time", self.kind());
        Answer::ready(Err(BackendError::permanent(problem).not_sent()))
    }

    /// Takes the key in its turn: takes a place in the store's own queue and waits there.
    ///
    /// Called in the place of [`try_acquire`](Self::try_acquire) and [`watch`](Self::watch) where
    /// [`Capabilities::queue`] says so and the caller has time to wait. Asked for again after a failure,
    /// the same claim keeps its place. The validity of a grant counts from before the request was made,
    /// as always, however long it waited.
    fn acquire_in_turn<'a>(
        &'a self,
        claim: &'a Claim,
    ) -> Answer<'a, Result<Attempt, BackendError>> {
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

    /// The keys that begin so and are held or waited for, in order, [`MOST_LISTED`] at most: for operators.
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

/// What a holder or a would-be holder shows to the backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The key.
    pub key: LockKey,
    /// Drawn afresh for every acquire.
    pub owner: OwnerId,
    /// The lease's length, from each grant or renewal.
    pub ttl: Duration,
    /// The token, once it was granted.
    pub token: Option<FencingToken>,
    /// Who else may hold the key beside it.
    pub sharing: Sharing,
    /// First come, first served: is it to take a place in the store's queue?
    pub fair: bool,
    /// How much longer its caller waits. With none left it needs no place in a queue.
    pub patience: Duration,
    /// Who it is, for people: stored beside the owner.
    pub claimant: Claimant,
}

/// Who else may hold a key beside a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sharing {
    /// Nobody.
    #[default]
    Exclusive,
    /// Others that share.
    Shared,
    /// Others with permits, as long as there are fewer than so many holders.
    Permits(NonZeroU32),
}

impl Sharing {
    /// At most so many holders: one of them holds alone.
    #[must_use]
    pub const fn of_permits(permits: NonZeroU32) -> Self {
        if permits.get() == 1 { Self::Exclusive } else { Self::Permits(permits) }
    }

    /// The number of permits among these that differs from this one's, if it has one.
    pub(crate) fn other_permits(self, others: impl Iterator<Item = Self>) -> Option<NonZeroU32> {
        let Self::Permits(own) = self else { return None };
        let mut others = others.filter_map(|other| match other {
            Self::Permits(permits) => Some(permits),
            Self::Exclusive | Self::Shared => None,
        });
        others.find(|permits| *permits != own)
    }

    /// How stores write it: `x`, `s`, or `p` and the number.
    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn code(self) -> String {
        match self {
            Self::Exclusive => "x".to_owned(),
            Self::Shared => "s".to_owned(),
            Self::Permits(permits) => format!("p{permits}"),
        }
    }
}

impl Claim {
    /// A claim of a new owner.
    #[must_use]
    pub fn new(key: LockKey, ttl: Duration) -> Self {
        Self {
            key,
            owner: OwnerId::random(),
            ttl,
            token: None,
            sharing: Sharing::Exclusive,
            fair: false,
            patience: Duration::ZERO,
            claimant: Claimant::new(""),
        }
    }

    /// Does it ask for the key alone, and in no order?
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        matches!(self.sharing, Sharing::Exclusive) && !self.fair
    }

    /// May it stand among those who share the key or wait for it in order? Who was granted a key alone does
    /// not, any more.
    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) const fn may_be_in_a_group(&self) -> bool {
        !matches!(self.sharing, Sharing::Exclusive) || self.token.is_none()
    }

    /// The same, sharing the key so.
    #[must_use]
    pub const fn with_sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// The same, first come, first served or not.
    #[must_use]
    pub const fn with_fair(mut self, fair: bool) -> Self {
        self.fair = fair;
        self
    }

    /// The same, of this one.
    #[must_use]
    pub fn with_claimant(mut self, claimant: Claimant) -> Self {
        self.claimant = claimant;
        self
    }

    /// The same with a caller that waits for so long.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// The answer to a try.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Attempt {
    /// The key is this claim's.
    #[non_exhaustive]
    Granted {
        /// Larger than that of every earlier grant of this key.
        token: FencingToken,
        /// How long the lease surely lasts, counted from *before* the request was made: the ttl less
        /// an allowance for the drift of clocks.
        validity: Duration,
        /// Another number of permits, by which somebody else counts who holds the key or waits for it.
        other_permits: Option<NonZeroU32>,
        /// See [`with_in_doubt`](Attempt::with_in_doubt).
        in_doubt: bool,
    },
    /// Somebody else's.
    #[non_exhaustive]
    Busy {
        /// When the present lease would end without a renewal, or when to look again for another reason,
        /// if the backend can tell.
        expires_in: Option<Duration>,
        /// Does the claim have a place in the store's queue now? It is released when its caller gives up.
        queued: bool,
        /// As with a grant.
        other_permits: Option<NonZeroU32>,
        /// As with a grant.
        in_doubt: bool,
    },
}

impl Attempt {
    /// A grant.
    #[must_use]
    pub const fn granted(token: FencingToken, validity: Duration) -> Self {
        Self::Granted { token, validity, other_permits: None, in_doubt: false }
    }

    /// A refusal.
    #[must_use]
    pub const fn busy(expires_in: Option<Duration>) -> Self {
        Self::Busy { expires_in, queued: false, other_permits: None, in_doubt: false }
    }

    /// A refusal, with a place in the store's queue.
    #[must_use]
    pub const fn queued(look_in: Option<Duration>) -> Self {
        Self::Busy { expires_in: look_in, queued: true, other_permits: None, in_doubt: false }
    }

    /// The same, with the number by which somebody else counts.
    #[must_use]
    pub const fn with_other_permits(mut self, other: Option<NonZeroU32>) -> Self {
        match &mut self {
            Self::Granted { other_permits, .. } | Self::Busy { other_permits, .. } => {
                *other_permits = other;
            }
        }
        self
    }

    /// The same, where another copy of this request may still be executed: the store sent it again over another
    /// connection. Its [release](Release) then sets [`late_acquire`](Release::late_acquire), whether it was granted or
    /// its caller gives up.
    #[must_use]
    pub const fn with_in_doubt(mut self, is_in_doubt: bool) -> Self {
        match &mut self {
            Self::Granted { in_doubt, .. } | Self::Busy { in_doubt, .. } => *in_doubt = is_in_doubt,
        }
        self
    }

    /// May another copy of the request still be executed?
    pub(crate) const fn in_doubt(&self) -> bool {
        match self {
            Self::Granted { in_doubt, .. } | Self::Busy { in_doubt, .. } => *in_doubt,
        }
    }

    /// The other number of permits that somebody counts by.
    pub(crate) const fn other_permits(&self) -> Option<NonZeroU32> {
        match self {
            Self::Granted { other_permits, .. } | Self::Busy { other_permits, .. } => {
                *other_permits
            }
        }
    }

    /// Has the claim a place in the store's queue?
    pub(crate) const fn is_queued(&self) -> bool {
        matches!(self, Self::Busy { queued: true, .. })
    }
}

/// The answer to a try for several keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SetAttempt {
    /// All keys are theirs.
    #[non_exhaustive]
    Granted {
        /// Each claim's token, in the order of the claims.
        tokens: Vec<FencingToken>,
        /// As with [one key](Attempt::Granted).
        validity: Duration,
        /// As with one key.
        other_permits: Option<NonZeroU32>,
        /// As with one key.
        in_doubt: bool,
    },
    /// One of them is somebody else's.
    #[non_exhaustive]
    Busy {
        /// Which one.
        at: usize,
        /// When to look again, if the backend can tell.
        expires_in: Option<Duration>,
        /// Does a claim have a place in the store's queue now?
        queued: bool,
        /// As with one key.
        other_permits: Option<NonZeroU32>,
        /// As with one key.
        in_doubt: bool,
    },
}

impl SetAttempt {
    /// A grant.
    #[must_use]
    pub const fn granted(tokens: Vec<FencingToken>, validity: Duration) -> Self {
        Self::Granted { tokens, validity, other_permits: None, in_doubt: false }
    }

    /// A refusal because of this one.
    #[must_use]
    pub const fn busy(at: usize, expires_in: Option<Duration>, queued: bool) -> Self {
        Self::Busy { at, expires_in, queued, other_permits: None, in_doubt: false }
    }

    /// The same, with the number by which somebody else counts.
    #[must_use]
    pub const fn with_other_permits(mut self, other: Option<NonZeroU32>) -> Self {
        match &mut self {
            Self::Granted { other_permits, .. } | Self::Busy { other_permits, .. } => {
                *other_permits = other;
            }
        }
        self
    }

    /// The same, where another copy of this request may still be executed: the store sent it again over another
    /// connection. Its [release](Release) then sets [`late_acquire`](Release::late_acquire), whether it was granted or
    /// its caller gives up.
    #[must_use]
    pub const fn with_in_doubt(mut self, is_in_doubt: bool) -> Self {
        match &mut self {
            Self::Granted { in_doubt, .. } | Self::Busy { in_doubt, .. } => *in_doubt = is_in_doubt,
        }
        self
    }

    /// May another copy of the request still be executed?
    pub(crate) const fn in_doubt(&self) -> bool {
        match self {
            Self::Granted { in_doubt, .. } | Self::Busy { in_doubt, .. } => *in_doubt,
        }
    }

    /// The other number of permits that somebody counts by.
    pub(crate) const fn other_permits(&self) -> Option<NonZeroU32> {
        match self {
            Self::Granted { other_permits, .. } | Self::Busy { other_permits, .. } => {
                *other_permits
            }
        }
    }

    /// Has the claim a place in the store's queue?
    pub(crate) const fn is_queued(&self) -> bool {
        matches!(self, Self::Busy { queued: true, .. })
    }

    /// The answer to a try for one key alone.
    #[cfg(feature = "redis")]
    pub(crate) fn of_one(self) -> Attempt {
        match self {
            Self::Granted { tokens, validity, other_permits, in_doubt } => {
                let token = tokens.first().copied().unwrap_or(FencingToken::new(0));
                Attempt::Granted { token, validity, other_permits, in_doubt }
            }
            Self::Busy { expires_in, queued, other_permits, in_doubt, .. } => {
                Attempt::Busy { expires_in, queued, other_permits, in_doubt }
            }
        }
    }

    /// What several entries have decided.
    pub(crate) fn of(verdict: entry::SetVerdict, validity: Duration) -> Self {
        match verdict {
            entry::SetVerdict::Granted(tokens) => {
                Self::granted(tokens.into_iter().map(FencingToken::new).collect(), validity)
            }
            entry::SetVerdict::Busy { at, look_in, queued } => Self::busy(at, look_in, queued),
        }
    }
}

/// The answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewal {
    /// The lease lasts at least so long, counted from before the request was made.
    Renewed {
        /// The ttl less an allowance for the drift of clocks.
        validity: Duration,
    },
    /// The claim holds nothing (any more).
    NotHeld,
}

/// How to give a lease back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Leave the key locked for so long, held by nobody: the rest of a `min_hold`.
    pub keep_for: Option<Duration>,
    /// A `try_acquire` of this claim was given up and may be executed later than this release: it
    /// must not grant then.
    pub late_acquire: bool,
}

/// The answer to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Released {
    /// The lease was this claim's until now.
    Released,
    /// The claim did not hold the key.
    NotHeld,
}

/// A standing interest in one key; dropping it ends the interest.
pub trait Watch: Send {
    /// Resolves when the key may have become free since the watch began or since the last time.
    ///
    /// # Cancel safety
    /// Dropping the answer loses no change: the next call reports it.
    fn changed(&mut self) -> Answer<'_, ()>;
}

/// What a store has whose waiters take their turn in a queue of its own.
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
enum NoWatch {}

#[cfg(any(feature = "zookeeper", feature = "etcd"))]
impl Watch for NoWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        match *self {}
    }
}

/// A lease's ttl less the allowance for the drift of two clocks: 1 % and 2 ms, the figures of the
/// Redlock description.
#[must_use]
pub fn validity_of(ttl: Duration) -> Duration {
    ttl.saturating_sub(ttl / 100 + Duration::from_millis(2))
}

/// An answer that is there already, or a future of it.
///
/// A backend that has its answer at once allocates nothing for it.
#[must_use = "an answer does nothing unless it is awaited"]
pub struct Answer<'a, T>(Inner<'a, T>);

enum Inner<'a, T> {
    Ready(T),
    Pending(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
    Given,
}

impl<'a, T> Answer<'a, T> {
    /// An answer that is there.
    pub const fn ready(value: T) -> Self {
        Self(Inner::Ready(value))
    }

    /// An answer to be awaited.
    pub fn from_future(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self(Inner::Pending(Box::pin(future)))
    }

    /// Is it there already? Then nothing of the request is left to happen.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.0, Inner::Ready(_))
    }
}

impl<T: Unpin> Future for Answer<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Inner::Pending(future) = &mut self.0 {
            let value = std::task::ready!(future.as_mut().poll(cx));
            self.0 = Inner::Given;
            return Poll::Ready(value);
        }
        match std::mem::replace(&mut self.0, Inner::Given) {
            Inner::Ready(value) => Poll::Ready(value),
            Inner::Pending(_) | Inner::Given => panic!("an answer was polled after it was given"),
        }
    }
}

impl<T> fmt::Debug for Answer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ready() { "Answer(ready)" } else { "Answer(pending)" })
    }
}

impl fmt::Debug for dyn Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.kind())
    }
}

/// A pointer to a backend is a backend.
macro_rules! delegate {
    ($pointer:ident) => {
        impl<B: Backend + ?Sized> Backend for $pointer<B> {
            fn kind(&self) -> &'static str {
                (**self).kind()
            }
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }
            fn try_acquire<'a>(
                &'a self,
                claim: &'a Claim,
            ) -> Answer<'a, Result<Attempt, BackendError>> {
                (**self).try_acquire(claim)
            }
            fn try_acquire_set<'a>(
                &'a self,
                claims: &'a [Claim],
            ) -> Answer<'a, Result<SetAttempt, BackendError>> {
                (**self).try_acquire_set(claims)
            }
            fn acquire_in_turn<'a>(
                &'a self,
                claim: &'a Claim,
            ) -> Answer<'a, Result<Attempt, BackendError>> {
                (**self).acquire_in_turn(claim)
            }
            fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
                (**self).renew(claim)
            }
            fn release<'a>(
                &'a self,
                claim: &'a Claim,
                release: Release,
            ) -> Answer<'a, Result<Released, BackendError>> {
                (**self).release(claim, release)
            }
            fn watch<'a>(
                &'a self,
                key: &'a LockKey,
            ) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
                (**self).watch(key)
            }
            fn inspect<'a>(
                &'a self,
                key: &'a LockKey,
            ) -> Answer<'a, Result<Option<Holder>, BackendError>> {
                (**self).inspect(key)
            }
            fn list<'a>(
                &'a self,
                prefix: &'a str,
            ) -> Answer<'a, Result<Vec<LockState>, BackendError>> {
                (**self).list(prefix)
            }
            fn revoke<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
                (**self).revoke(key)
            }
            fn force_release<'a>(
                &'a self,
                key: &'a LockKey,
            ) -> Answer<'a, Result<bool, BackendError>> {
                (**self).force_release(key)
            }
        }
    };
}

delegate!(Box);
delegate!(Arc);
