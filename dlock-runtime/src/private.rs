//! The functions that the attribute's expansion calls. Not part of the public API.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::OnceLock;

pub use core::num::NonZeroU32;
pub use core::time::Duration;
pub use inventory;

pub use crate::backend::Mode;
use crate::engine::{CallKind, Inside, Request, enter, run_guarded};
use crate::error::LockError;
pub use crate::guard::{LockGuard, LockSet};
pub use crate::key::{KeyValue, KeyWriter, LockKey};
use crate::lock::enter_all;
pub use crate::options::{Handover, LockOptions, OnLost, Wait};
use crate::registry::Registry;
pub use crate::site::Site;
use crate::transaction::{DEFAULT_WAIT, RowLockOptions, lock_valid};
pub use crate::transaction::{RowLock, RowLocks, Transactional};

/// Begins a key.
#[must_use]
pub fn key() -> KeyWriter {
    KeyWriter::new()
}

/// Converts an expression to a key.
///
/// # Errors
/// None, because the key is checked on use. Returns a `Result` like a template's key.
#[allow(clippy::unnecessary_wraps, reason = "one type for both kinds of key")]
pub fn key_from(key: impl Into<LockKey>) -> Result<LockKey, LockError> {
    Ok(key.into())
}

/// The return type of an annotated function.
#[diagnostic::on_unimplemented(
    message = "a function under `#[distributed_lock]` must be able to report that the lock was not taken, but it returns `{Self}`",
    label = "must be a `Result<T, E>`",
    note = "return `Result<{Self}, E>` where `E: From<dlock_runtime::LockError>`, such as `Result<{Self}, LockError>`"
)]
pub trait Fallible {
    type Ok;
    type Error;
}

impl<T, E> Fallible for Result<T, E> {
    type Ok = T;
    type Error = E;
}

/// An error that a [`LockError`] can become.
#[diagnostic::on_unimplemented(
    message = "the error type `{Self}` cannot report that a lock was not taken",
    label = "`{Self}` does not implement `From<LockError>`",
    note = "implement `From<dlock_runtime::LockError>` for it, or write `map_err = path` in the attribute, with `fn path(error: LockError) -> {Self}`"
)]
pub trait FromLockError {
    fn from_lock_error(error: LockError) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<LockError>> FromLockError for E {
    fn from_lock_error(error: LockError) -> Self {
        error.into()
    }
}

/// Returns the conversion from a lock error to the function's error type. The only place that requires the bound.
#[must_use]
pub fn error<R: Fallible>() -> fn(LockError) -> R::Error
where
    R::Error: FromLockError,
{
    FromLockError::from_lock_error
}

/// Returns the user's own conversion.
#[must_use]
pub fn map_error<R: Fallible>(map: fn(LockError) -> R::Error) -> fn(LockError) -> R::Error {
    map
}

/// Fixes the output type of a future for type inference.
pub fn expect<T, F: Future<Output = T>>(future: F) -> F {
    future
}

/// The value that a function returns when it skips its body.
#[diagnostic::on_unimplemented(
    message = "`on_busy = \"skip\"` has no value of type `{Self}` to return when the body is skipped",
    label = "must be `Option<T>` or `()`",
    note = "return `Result<Option<T>, E>` (a skipped call gives `Ok(None)`) or `Result<(), E>` (it gives `Ok(())`)"
)]
pub trait Skipped {
    fn skipped() -> Self;
}

impl Skipped for () {
    fn skipped() -> Self {}
}

impl<T> Skipped for Option<T> {
    fn skipped() -> Self {
        None
    }
}

/// Holds a body's guard. Filled before the body is first polled.
#[derive(Debug)]
pub struct GuardSlot<G>(OnceLock<G>);

impl<G> GuardSlot<G> {
    /// Creates an empty slot.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "made by the expansion only")]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Returns the guard.
    ///
    /// # Panics
    /// Before the body runs. The expansion calls it only inside the body.
    pub fn get(&self) -> &G {
        self.0.get().expect("the guard is set before the body runs")
    }
}

/// What an annotated function returns for a busy lock: an error.
#[must_use]
pub fn or_error<T>() -> Option<T> {
    None
}

/// With `on_busy = "skip"`: the value of a skipped body.
#[must_use]
pub fn or_skip<T: Skipped>() -> Option<T> {
    Some(T::skipped())
}

/// The keys of an annotated function: one, or several that are locked together.
pub trait Keys {
    /// What the body holds under a lease.
    type Held;
    /// What the body holds in its caller's transaction.
    type Rows;
    #[doc(hidden)]
    type Guards: AsRef<[LockGuard]> + IntoIterator<Item = LockGuard>;

    #[doc(hidden)]
    fn enter(self, site: &'static Site) -> impl Future<Output = Result<Self::Guards, LockError>>;

    /// The body's view of its guards.
    #[doc(hidden)]
    fn view(guards: &[LockGuard]) -> Self::Held;

    #[doc(hidden)]
    fn into_valid(self) -> Result<Vec<LockKey>, LockError>;

    #[doc(hidden)]
    fn rows(locks: RowLocks) -> Self::Rows;
}

impl Keys for Result<LockKey, LockError> {
    type Held = LockGuard;
    type Rows = RowLock;
    type Guards = [LockGuard; 1];

    async fn enter(self, site: &'static Site) -> Result<Self::Guards, LockError> {
        let registry = Registry::current_or_installed()?;
        let request = request(&registry, site, site.template(), self)?;
        enter(&registry.0, &request, CallKind::Body).await.map(|guard| [guard])
    }

    fn view(guards: &[LockGuard]) -> LockGuard {
        guards[0].view()
    }

    fn into_valid(self) -> Result<Vec<LockKey>, LockError> {
        self.map(|key| vec![key])
    }

    fn rows(locks: RowLocks) -> RowLock {
        locks.into_locks().remove(0)
    }
}

impl<const N: usize> Keys for [Result<LockKey, LockError>; N] {
    type Held = LockSet;
    type Rows = RowLocks;
    type Guards = Vec<LockGuard>;

    async fn enter(self, site: &'static Site) -> Result<Self::Guards, LockError> {
        let registry = Registry::current_or_installed()?;
        // Each hold is counted under its own template.
        let templates = site.keys().iter().copied();
        let requests = self.into_iter().zip(templates);
        let requests = requests.map(|(key, template)| request(&registry, site, template, key));
        let requests = requests.collect::<Result<Vec<_>, _>>()?;
        enter_all(&registry, requests, CallKind::Body).await.map(LockSet::into_guards)
    }

    fn view(guards: &[LockGuard]) -> LockSet {
        LockSet::new(guards.iter().map(LockGuard::view).collect())
    }

    fn into_valid(self) -> Result<Vec<LockKey>, LockError> {
        self.into_iter().collect()
    }

    fn rows(locks: RowLocks) -> RowLocks {
        locks
    }
}

/// Runs an annotated body under its locks.
///
/// # Errors
/// Those of the body, and lock errors converted by `error`. A busy lock is an error unless `skipped` returns a value.
pub async fn run<K, T, E, F>(
    site: &'static Site,
    keys: K,
    guard_slot: Option<&GuardSlot<K::Held>>,
    error: fn(LockError) -> E,
    skipped: fn() -> Option<T>,
    body: Pin<&mut Option<F>>,
) -> Result<T, E>
where
    K: Keys,
    F: Future<Output = Result<T, E>>,
{
    // Boxed as a whole, so that the future of an annotated function stays small however deeply such
    // functions nest.
    Box::pin(async move {
        let guards = match keys.enter(site).await {
            Ok(guards) => guards,
            Err(refusal) => return not_entered(refusal, error, skipped),
        };
        if let Some(slot) = guard_slot {
            slot.0.get_or_init(|| K::view(guards.as_ref()));
        }
        let run = run_guarded(guards, site.options.on_lost, body, Result::is_err);
        run.await.unwrap_or_else(|lock_error| Err(error(lock_error)))
    })
    .await
}

fn not_entered<T, E>(
    refusal: LockError,
    error: fn(LockError) -> E,
    skipped: fn() -> Option<T>,
) -> Result<T, E> {
    if refusal.is_busy()
        && let Some(nothing) = skipped()
    {
        return Ok(nothing);
    }
    Err(error(refusal))
}

fn request<'e>(
    registry: &'e Registry,
    site: &'static Site,
    template: &'static str,
    key: Result<LockKey, LockError>,
) -> Result<Request<'e>, LockError> {
    let label = Cow::Borrowed(site.label());
    Request::new(&registry.0, key?, template, label, &site.options, site.options.backend)
}

/// The implementation of `assert_locked!`.
///
/// # Panics
/// If this task does not hold the lock.
#[track_caller]
pub fn assert_locked(key: Result<LockKey, LockError>, shared: bool) {
    let key = key.unwrap_or_else(|error| panic!("{error}"));
    #[cfg(feature = "testing")]
    if crate::testing::is_assumed(&key) {
        return;
    }
    let how = if shared { "" } else { " exclusively" };
    assert!(
        Inside::holds(&key, shared),
        "`{key}` is not locked{how} by this task: call this under a function with `#[distributed_lock(key = …)]` or in `lock(…).run(…)`; a spawned task inherits no lock"
    );
}

/// Converts the transaction that a function receives. The only place that requires the bound.
pub fn transaction<C: Transactional>(transaction: &mut C) -> &mut dyn Transactional {
    transaction
}

/// Acquires the row locks of an annotated function in its caller's transaction, all or none.
///
/// # Errors
/// What the function returns at once instead of running its body.
pub async fn run_row<K: Keys, T, E>(
    site: &'static Site,
    keys: K,
    error: fn(LockError) -> E,
    skipped: fn() -> Option<T>,
    transaction: &mut dyn Transactional,
) -> Result<K::Rows, Result<T, E>> {
    // Boxed as a whole, as for leases.
    let locked = Box::pin(async move {
        let wait = site.options.wait.unwrap_or(DEFAULT_WAIT.into());
        let options = RowLockOptions::new(wait, false)
            .with_mode(site.options.mode)
            .with_skip_if_busy(site.options.skip_if_busy);
        let templates = site.keys().iter().copied();
        let keys = keys.into_valid()?.into_iter().zip(templates).collect();
        lock_valid(transaction, keys, options).await
    })
    .await;
    locked.map(K::rows).map_err(|refusal| not_entered(refusal, error, skipped))
}
