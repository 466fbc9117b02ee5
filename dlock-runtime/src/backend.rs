//! The one seam: what a store must be able to do so that locks can live in it.
//!
//! A backend knows nothing of the engine (queues, renewal, reentrancy), and the engine nothing of
//! any one backend. To write one, implement [`Backend`] and run the conformance suite of
//! `dlock_runtime::testing` (feature `testing`) against it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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
#[cfg(feature = "etcd")]
pub mod etcd;
mod memory;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "redis")]
pub mod redlock;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod sweeping;
#[cfg(any(feature = "redis", feature = "postgres"))]
mod topics;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

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
#[cfg(feature = "zookeeper")]
pub use zookeeper::ZooKeeper;

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

    /// Who holds the key at this moment.
    fn inspect<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Option<Holder>, BackendError>>;

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
}

impl Claim {
    /// A claim of a new owner.
    #[must_use]
    pub fn new(key: LockKey, ttl: Duration) -> Self {
        Self { key, owner: OwnerId::random(), ttl, token: None }
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
    },
    /// Somebody else's.
    #[non_exhaustive]
    Busy {
        /// When the present lease would end without a renewal, if the backend can tell.
        expires_in: Option<Duration>,
    },
}

impl Attempt {
    /// A grant.
    #[must_use]
    pub const fn granted(token: FencingToken, validity: Duration) -> Self {
        Self::Granted { token, validity }
    }

    /// A refusal.
    #[must_use]
    pub const fn busy(expires_in: Option<Duration>) -> Self {
        Self::Busy { expires_in }
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

/// Who holds a key, as [`Backend::inspect`] sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// The owner; `None` while a released key is kept locked for the rest of its `min_hold`.
    pub owner: Option<OwnerId>,
    /// Its token.
    pub token: FencingToken,
    /// When the lease ends without a renewal.
    pub expires_in: Duration,
}

impl Holder {
    /// A holder, for backends.
    #[must_use]
    pub const fn new(owner: Option<OwnerId>, token: FencingToken, expires_in: Duration) -> Self {
        Self { owner, token, expires_in }
    }
}

/// What a backend can honour; checked against every lock site when a registry is installed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct Capabilities {
    /// The shortest ttl.
    pub min_ttl: Duration,
    /// The longest ttl.
    pub max_ttl: Duration,
    /// Can it keep a released key locked for the rest of a `min_hold`, also when the process ends?
    pub min_hold: bool,
    /// Are waiters told of a release, so that polling is only a safety net?
    pub push: bool,
    /// Do other processes share its locks?
    pub shared_by_processes: bool,
    /// Do waiters line up in the store itself, each told when it is its turn? Then
    /// [`Backend::acquire_in_turn`] waits.
    pub queue: bool,
    /// Do locks last as long as the process's session with the store, rather than for a ttl each? Then a
    /// grant's or a renewal's validity is what is proved of the session, which may be far less than a
    /// ttl, and the engine renews it as often; and a hold that ends before its owner gives it back is
    /// released, since it would not end by itself.
    pub session: bool,
}

impl Capabilities {
    /// What a plain lease store can do: any ttl from 1 ms to a day, `min_hold`, push, many processes.
    pub const LEASES: Self = Self {
        min_ttl: Duration::from_millis(1),
        max_ttl: Duration::from_hours(24),
        min_hold: true,
        push: true,
        shared_by_processes: true,
        queue: false,
        session: false,
    };

    /// The same with another shortest and longest ttl.
    #[must_use]
    pub const fn with_ttl(mut self, min: Duration, max: Duration) -> Self {
        self.min_ttl = min;
        self.max_ttl = max;
        self
    }

    /// The same with or without `min_hold`.
    #[must_use]
    pub const fn with_min_hold(mut self, min_hold: bool) -> Self {
        self.min_hold = min_hold;
        self
    }

    /// The same with or without push wake-up.
    #[must_use]
    pub const fn with_push(mut self, push: bool) -> Self {
        self.push = push;
        self
    }

    /// The same with or without a queue of the store's own.
    #[must_use]
    pub const fn with_queue(mut self, queue: bool) -> Self {
        self.queue = queue;
        self
    }

    /// The same for locks that last as long as a session, or do not.
    #[must_use]
    pub const fn with_session(mut self, session: bool) -> Self {
        self.session = session;
        self
    }

    /// The same for a store that other processes share, or do not.
    #[must_use]
    pub const fn with_shared_by_processes(mut self, shared: bool) -> Self {
        self.shared_by_processes = shared;
        self
    }
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
