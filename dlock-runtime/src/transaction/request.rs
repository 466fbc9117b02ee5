//! Requests for row locks, before they are awaited.

use std::future::IntoFuture;
use std::pin::Pin;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use std::time::Duration;
use std::time::Instant;

use tracing::Instrument;

use super::row_lock::{RowLock, RowLocks};
use super::{DEFAULT_WAIT, Transactional};
use crate::engine::MANUAL;
use crate::engine::telemetry::{AcquireSpan, Labels, Store};
#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::error::HeldBy;
use crate::error::LockError;
use crate::key::LockKey;
use crate::mode::Mode;
use crate::options::Wait;

/// The options of a request for row locks.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(any(feature = "postgres", feature = "mysql")),
    allow(dead_code, reason = "no database to lock rows in")
)]
pub struct RowLockOptions {
    pub(crate) wait: Wait,
    pub(crate) any_isolation: bool,
    pub(crate) mode: Mode,
    /// The caller skips its body if a lock is busy.
    pub(crate) skip_if_busy: bool,
    began: Instant,
}

impl RowLockOptions {
    pub(crate) fn new(wait: Wait, any_isolation: bool) -> Self {
        let (mode, skip_if_busy) = (Mode::Exclusive, false);
        Self { wait, any_isolation, mode, skip_if_busy, began: Instant::now() }
    }

    /// Sets the mode.
    pub(crate) fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn with_skip_if_busy(mut self, skip_if_busy: bool) -> Self {
        self.skip_if_busy = skip_if_busy;
        self
    }

    /// Is it shared with other readers?
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn is_shared(&self) -> bool {
        self.mode == Mode::Shared
    }

    /// The rest of the wait; `None` without a limit.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn left(&self) -> Option<Duration> {
        match self.wait {
            Wait::UpTo(limit) => Some(limit.saturating_sub(self.began.elapsed())),
            Wait::Forever => None,
        }
    }

    /// The rest of the wait plus `more`; `None` without a limit.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn left_with(&self, more: Duration) -> Option<Duration> {
        match self.wait {
            Wait::UpTo(limit) => {
                Some(limit.saturating_add(more).saturating_sub(self.began.elapsed()))
            }
            Wait::Forever => None,
        }
    }

    /// Is the wait over?
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    /// How long the next statement may wait: the rest of the wait, at most `longest`.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn next_wait(&self, longest: Duration) -> Duration {
        self.left().map_or(longest, |left| left.min(longest))
    }

    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn busy(&self, key: &LockKey) -> LockError {
        let waited = self.began.elapsed();
        LockError::Busy { key: key.clone(), waited, holder: HeldBy::Elsewhere }
    }
}

/// Locks one key when awaited; created by [`lock`](super::lock).
#[derive(Debug)]
#[must_use = "nothing is locked before this is awaited"]
pub struct RowLockRequest<'a, C: ?Sized>(RowLocksRequest<'a, C>);

/// Locks several keys when awaited; created by [`lock_all`](super::lock_all).
#[derive(Debug)]
#[must_use = "nothing is locked before this is awaited"]
pub struct RowLocksRequest<'a, C: ?Sized> {
    transaction: &'a mut C,
    keys: Vec<LockKey>,
    template: &'static str,
    wait: Wait,
    mode: Mode,
    any_isolation: bool,
}

impl<'a, C: Transactional + ?Sized> RowLockRequest<'a, C> {
    pub(crate) fn new(transaction: &'a mut C, key: LockKey) -> Self {
        Self(RowLocksRequest::new(transaction, vec![key]))
    }

    /// Sets how long to wait for a contended lock; zero tries once, [`Wait::Forever`] has no limit;
    /// [`DEFAULT_WAIT`] if not set.
    pub fn wait(self, wait: impl Into<Wait>) -> Self {
        Self(self.0.wait(wait))
    }

    /// Acquires the lock exclusively, or shared with other readers; exclusive if not set.
    ///
    /// Row locks have no permits: [`Mode::Permits`] is [`LockError::Unsupported`].
    pub fn mode(self, mode: Mode) -> Self {
        Self(self.0.mode(mode))
    }

    /// Sets the low-cardinality name of this lock in traces and metrics; `(manual)` if not set.
    pub fn template(self, template: &'static str) -> Self {
        Self(self.0.template(template))
    }

    /// Allows a transaction whose plain reads may be older than the lock; see the
    /// [module](super#isolation).
    pub fn any_isolation(self) -> Self {
        Self(self.0.any_isolation())
    }
}

impl<'a, C: Transactional + ?Sized> RowLocksRequest<'a, C> {
    pub(crate) fn new(transaction: &'a mut C, keys: Vec<LockKey>) -> Self {
        let wait = DEFAULT_WAIT.into();
        let (template, mode) = (MANUAL, Mode::Exclusive);
        Self { transaction, keys, template, wait, mode, any_isolation: false }
    }

    /// Sets how long to wait for all locks together; see [`RowLockRequest::wait`].
    pub fn wait(mut self, wait: impl Into<Wait>) -> Self {
        self.wait = wait.into();
        self
    }

    /// See [`RowLockRequest::mode`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// See [`RowLockRequest::template`].
    pub fn template(mut self, template: &'static str) -> Self {
        self.template = template;
        self
    }

    /// See [`RowLockRequest::any_isolation`].
    pub fn any_isolation(mut self) -> Self {
        self.any_isolation = true;
        self
    }
}

impl<'a, C: Transactional + ?Sized> IntoFuture for RowLockRequest<'a, C> {
    type Output = Result<RowLock, LockError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let all = self.0.into_future();
        Box::pin(async move {
            let mut locks = all.await?.into_locks();
            Ok(locks.remove(0))
        })
    }
}

impl<'a, C: Transactional + ?Sized> IntoFuture for RowLocksRequest<'a, C> {
    type Output = Result<RowLocks, LockError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { transaction, keys, template, wait, mode, any_isolation } = self;
        let options = RowLockOptions::new(wait, any_isolation).with_mode(mode);
        let keys = keys.into_iter().map(|key| (key, template)).collect();
        Box::pin(lock_valid(transaction, keys, options))
    }
}

/// Checks the keys, which come with their templates, sorts them into the order that every caller uses, and locks them.
pub(crate) async fn lock_valid<C: Transactional + ?Sized>(
    transaction: &mut C,
    mut keys: Vec<(LockKey, &'static str)>,
    options: RowLockOptions,
) -> Result<RowLocks, LockError> {
    for (key, _) in &keys {
        key.check()?;
    }
    if let Mode::Permits(permits) = options.mode {
        return Err(LockError::Unsupported {
            backend: "transaction".into(),
            option: format!("permits = {permits}: a database does not count the holders of a row")
                .into(),
        });
    }
    keys.sort_unstable();
    keys.dedup_by(|(one, _), (other, _)| one == other);
    let (keys, templates): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    let mut labels = keys.iter().zip(templates).map(|(key, template)| Labels {
        template,
        key,
        store: Store::Transaction,
    });
    let Some(first) = labels.next() else { return Ok(RowLocks::new(vec![])) };
    let span = AcquireSpan::begin(first, labels.collect(), options.skip_if_busy);
    let locked = transaction.lock_rows(&keys, options).instrument(span.span().clone()).await;
    span.end(locked.as_ref().map(|tokens| tokens[0]));
    let locks = keys.into_iter().zip(locked?).map(|(key, token)| RowLock::new(key, token));
    Ok(RowLocks::new(locks.collect()))
}
