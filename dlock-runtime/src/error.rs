//! What can go wrong: [`LockError`] for callers, [`BackendError`] for backends.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::key::LockKey;

/// Why a lock was not acquired, or was lost.
///
/// If the call itself failed with one of these errors, the guarded body has not begun, except with
/// [`Lost`](Self::Lost), [`HeldTooLong`](Self::HeldTooLong), and a [`ShutDown`](Self::ShutDown) that says so. A body that calls another locked
/// function may also return that call's error as its own; its key tells the two apart.
///
/// `Display` says what happened in words that a client of the service may see: it names the key, but no host and no
/// address. What to do about it is the [`hint`](Self::hint), and what the backend reported is the
/// [`source`](Error::source). Both are for logs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another caller held the lock for the whole `wait`.
    #[error("lock `{key}` is busy: not free within {waited:?}")]
    #[non_exhaustive]
    Busy {
        /// The requested key.
        key: LockKey,
        /// How long the call waited.
        waited: Duration,
        /// Where the holder is, as far as this process knows.
        holder: HeldBy,
    },

    /// The lease ended before its holder released it: it could not be renewed in time, was revoked or
    /// forcibly released, or the backend forgot it. Others may have acquired the lock since then, and
    /// writes without a [fencing token](crate::FencingToken) may conflict with theirs.
    #[error("lock `{key}` was lost before {}: {reason}", if *.completed { "it was released" } else { "its body had completed" })]
    #[non_exhaustive]
    Lost {
        /// The key whose lease ended.
        key: LockKey,
        /// Whether the body ran to its end. If not, it was stopped on its way or did not start. For a
        /// bare [`LockGuard`](crate::LockGuard), which has no body, `release` reports true; `lost` and
        /// `extend` report false, although nothing was stopped.
        completed: bool,
        /// What ended the lease.
        reason: LostReason,
    },

    /// This task already holds the lock, shared or by permit, and a nested call requests it in a mode that
    /// excludes the other holders. The call would wait for itself.
    #[error(
        "this task already holds lock `{key}` shared or by permit, and a nested call requests it in a mode that excludes other holders"
    )]
    #[non_exhaustive]
    Upgrade {
        /// The requested key.
        key: LockKey,
    },

    /// The body ran for longer than `max_hold` and was stopped. The lock has been released.
    #[error(
        "lock `{key}` was held longer than its max_hold of {max_hold:?}, and its body was stopped"
    )]
    #[non_exhaustive]
    HeldTooLong {
        /// The key that was held.
        key: LockKey,
        /// The limit that was exceeded.
        max_hold: Duration,
    },

    /// No backend is registered under this name.
    #[error("no backend is registered as `{name}` (registered: {registered})")]
    #[non_exhaustive]
    UnknownBackend {
        /// The requested name.
        name: Box<str>,
        /// The registered names, as a readable list.
        registered: Box<str>,
    },

    /// The backend cannot honour an option of this lock.
    #[error("backend `{backend}` cannot honour {option}")]
    #[non_exhaustive]
    Unsupported {
        /// The backend's registered name.
        backend: Box<str>,
        /// The option and the backend's limit.
        option: Box<str>,
    },

    /// The key is empty or too long; nothing was sent.
    #[error("invalid lock key `{key}`: {problem}")]
    #[non_exhaustive]
    InvalidKey {
        /// The key, shortened if it is too long.
        key: LockKey,
        /// What is wrong with it.
        problem: Box<str>,
    },

    /// The backend failed or did not answer. The body has not begun.
    #[error("lock `{key}` is unavailable: its backend {}", if source.is_transient() { "failed or did not answer" } else { "refused the request" })]
    #[non_exhaustive]
    Backend {
        /// The requested key.
        key: LockKey,
        /// What the backend reported.
        source: BackendError,
    },

    /// The caller's transaction cannot hold this row lock. Its own writes are intact.
    #[error("lock `{key}` cannot be acquired in this transaction: {problem}")]
    #[non_exhaustive]
    Transaction {
        /// The requested key.
        key: LockKey,
        /// Why not, and what to do.
        problem: Box<str>,
    },

    /// No registry is installed, and the call is not in a registry's scope.
    #[error("no lock registry is installed")]
    NotInstalled,

    /// The call was made outside a tokio runtime.
    #[error("a lock was requested outside of a tokio runtime")]
    NoRuntime,

    /// The registry has been shut down: the lock was not acquired, or its body was stopped by a
    /// [drain](crate::Registry::drain).
    #[error("lock `{key}` is unavailable: this process is shutting down")]
    #[non_exhaustive]
    ShutDown {
        /// The requested key.
        key: LockKey,
        /// Whether the body had begun, and was stopped by a [drain](crate::Registry::drain). If not, the lock was not
        /// acquired.
        began: bool,
    },
}

impl LockError {
    pub(crate) fn invalid_key(key: &LockKey, problem: impl Into<Box<str>>) -> Self {
        let shown: String = key.as_str().chars().take(64).collect();
        Self::InvalidKey { key: shown.into(), problem: problem.into() }
    }

    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn no_transaction(key: &LockKey) -> Self {
        let problem = "there is none: a row lock lives as long as the transaction around it, so begin one through sqlx first (`pool.begin()`, `connection.begin()`; a `BEGIN` sent as text is not seen)";
        Self::Transaction { key: key.clone(), problem: problem.into() }
    }

    /// `isolation` is the database's name for the level.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn stale_reads(key: &LockKey, isolation: &str, how_to_begin: &str) -> Self {
        let problem = format!(
            "it reads from a snapshot ({isolation}) that may be older than the lock, so what it reads under the lock may be stale; {how_to_begin}, or allow it with `any_isolation()` in a manual call"
        );
        Self::Transaction { key: key.clone(), problem: problem.into() }
    }

    /// Returns what to do about it, for the people who run or write the service.
    ///
    /// ```
    /// # fn report(error: &dlock_runtime::LockError) {
    /// use std::error::Error as _;
    ///
    /// tracing::warn!(%error, hint = error.hint(), source = error.source(), "purchase failed");
    /// # }
    /// ```
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Busy { holder: HeldBy::Elsewhere, .. } => "retry, or raise `wait`",
            Self::Busy { holder: HeldBy::ThisProcess, .. } => {
                "a task of this process holds it or is ahead in the queue: if that task is waiting for this call (a spawned task inherits no lock), this is a self-deadlock"
            }
            Self::Busy { holder: HeldBy::ThisTask, .. } => {
                "an enclosing body of the same task holds it, and `reentrant = false` forbids nested calls: this is a self-deadlock"
            }
            Self::Lost { .. } => "check what the body wrote, or fence its writes with the token",
            Self::Upgrade { .. } => {
                "acquire it exclusively from the start, or end the outer call first"
            }
            Self::HeldTooLong { .. } => "make the body shorter, or raise `max_hold`",
            Self::UnknownBackend { .. } => {
                "add `.backend(name, …)` to the registry's builder, or correct the name"
            }
            Self::NotInstalled => {
                "call `Registry::builder()….install()` when the process starts, or run this in `registry.scope(…)`"
            }
            Self::NoRuntime => "make the call in a tokio runtime with its timer enabled",
            Self::Backend { .. } => "the error's source says what the store reported",
            Self::Unsupported { .. }
            | Self::InvalidKey { .. }
            | Self::Transaction { .. }
            | Self::ShutDown { .. } => return None,
        })
    }

    /// Returns whether another caller held the lock for the whole `wait`.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// Returns whether the lease ended before its holder released it.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Returns whether a retry of the same call may succeed.
    ///
    /// True for a busy lock and for transient failures of a backend. In both cases the body has not
    /// begun.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Backend { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}

/// Where the holder of a busy lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldBy {
    /// In another process, or unknown.
    Elsewhere,
    /// A task of this process holds it, or is ahead in the process's queue. If that task has
    /// spawned the task that makes this call, and waits for it, this is a self-deadlock.
    ThisProcess,
    /// An enclosing body of the same task holds it, and `reentrant = false` forbids nested calls.
    ThisTask,
}

/// What ended a lease before its holder released it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LostReason {
    /// It could not be renewed before it expired (the backend did not answer, or this process was
    /// paused or suspended).
    #[error("its lease expired")]
    Expired,
    /// The backend no longer knows this holder: its hold was revoked or forcibly released, the lock
    /// was granted to another caller after expiry, or a restart forgot it.
    #[error("the backend no longer knows this holder")]
    NotHeld,
    /// The runtime that renewed it was shut down.
    #[error("the runtime that renewed it was shut down")]
    Unattended,
    /// A nested call was still running when the hold it had entered under was released: its future was
    /// kept outside the enclosing body and polled after that body had ended.
    #[error("the outer hold that it had entered under was closed")]
    OuterClosed,
}

/// What a backend reports when it cannot answer.
///
/// It never contains a password: backends remove it from any URL they show. Cloning is cheap, because one
/// failure may be reported to many callers.
#[derive(Clone, Debug)]
pub struct BackendError(Arc<Failure>);

#[derive(Clone, Debug)]
struct Failure {
    message: String,
    transient: bool,
    sent: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl BackendError {
    /// Creates a transient failure: a retry may succeed, and the request may have been executed.
    #[must_use]
    pub fn transient(message: impl Into<String>) -> Self {
        Self(Arc::new(Failure {
            message: message.into(),
            transient: true,
            sent: true,
            source: None,
        }))
    }

    /// Creates a failure that a retry does not fix, such as wrong credentials or a missing permission.
    #[must_use]
    pub fn permanent(message: impl Into<String>) -> Self {
        Self(Arc::new(Failure {
            message: message.into(),
            transient: false,
            sent: true,
            source: None,
        }))
    }

    /// Declares that the request certainly never left this process (no connection could be made), so
    /// nothing has to be undone.
    #[must_use]
    pub fn not_sent(mut self) -> Self {
        Arc::make_mut(&mut self.0).sent = false;
        self
    }

    /// Declares that an earlier copy of the request may have been executed.
    #[cfg(any(
        feature = "redis",
        feature = "postgres",
        feature = "mysql",
        feature = "etcd",
        feature = "sim"
    ))]
    pub(crate) fn maybe_sent(mut self) -> Self {
        Arc::make_mut(&mut self.0).sent = true;
        self
    }

    /// Sets the underlying error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Arc::make_mut(&mut self.0).source = Some(source.into().into());
        self
    }

    /// Returns whether a retry of the same request may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// Returns whether the request may have reached the backend.
    #[must_use]
    pub fn may_have_been_sent(&self) -> bool {
        self.0.sent
    }
}

impl std::fmt::Display for BackendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_for_clients_names_no_host() {
        let source = BackendError::transient("cannot reach redis at cache.internal:6379");
        let error = LockError::Backend { key: "product:1".into(), source };
        let text = "lock `product:1` is unavailable: its backend failed or did not answer";
        assert_eq!(error.to_string(), text);
        let source = error.source().expect("it has one").to_string();
        assert!(source.contains("cache.internal"), "{source}");
    }

    #[test]
    fn errors_are_small_enough_for_a_result() {
        assert!(size_of::<LockError>() <= 64, "{}", size_of::<LockError>());
    }
}
