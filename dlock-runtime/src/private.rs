//! What the attribute's expansion calls. Not part of the public interface.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::OnceLock;

pub use core::time::Duration;
pub use inventory;

use crate::backend::Sharing;
use crate::engine::{Face, Inside, Want, enter, run_guarded};
use crate::error::LockError;
pub use crate::guard::{LockGuard, LockSet};
pub use crate::key::{KeyValue, KeyWriter, LockKey};
use crate::lock::enter_all;
use crate::options::Mode;
pub use crate::options::OnLost;
use crate::registry::Registry;
pub use crate::site::Site;
use crate::transaction::{DEFAULT_WAIT, Terms, lock_valid};
pub use crate::transaction::{RowLock, RowLocks, Transactional};

/// Begins a key.
#[must_use]
pub fn key() -> KeyWriter {
    KeyWriter::new()
}

/// A key from an expression.
///
/// # Errors
/// None: the key is checked when it is used. It is a `Result` as that of a template is.
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

/// How the function's error type takes in a lock error: the one place that asks for the bound.
#[must_use]
pub fn error<R: Fallible>() -> fn(LockError) -> R::Error
where
    R::Error: FromLockError,
{
    FromLockError::from_lock_error
}

/// The same by the user's own function.
#[must_use]
pub fn map_error<R: Fallible>(map: fn(LockError) -> R::Error) -> fn(LockError) -> R::Error {
    map
}

/// Tells inference what a future gives.
pub fn expect<T, F: Future<Output = T>>(future: F) -> F {
    future
}

/// What a function returns when it skips its body.
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

/// Where a body finds its guard: filled before the body's first poll.
#[derive(Debug)]
pub struct GuardSlot<G>(OnceLock<G>);

impl<G> GuardSlot<G> {
    /// An empty one.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "made by the expansion only")]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The guard.
    ///
    /// # Panics
    /// Before the body runs; the expansion asks only inside it.
    pub fn get(&self) -> &G {
        self.0.get().expect("the guard is there before the body runs")
    }
}

/// Runs an annotated body under one lock.
///
/// # Errors
/// Those of the body, and lock errors as `error` makes them.
pub fn run<T, E, F>(
    site: &'static Site,
    key: Result<LockKey, LockError>,
    guard_slot: Option<&GuardSlot<LockGuard>>,
    error: fn(LockError) -> E,
    body: Pin<&mut Option<F>>,
) -> impl Future<Output = Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    run_one(site, key, guard_slot, error, || None, body)
}

/// The same, but a busy lock skips the body.
///
/// # Errors
/// Those of [`run`], a busy lock excepted.
pub fn run_or_skip<T, E, F>(
    site: &'static Site,
    key: Result<LockKey, LockError>,
    guard_slot: Option<&GuardSlot<LockGuard>>,
    error: fn(LockError) -> E,
    body: Pin<&mut Option<F>>,
) -> impl Future<Output = Result<T, E>>
where
    T: Skipped,
    F: Future<Output = Result<T, E>>,
{
    run_one(site, key, guard_slot, error, || Some(T::skipped()), body)
}

/// Runs an annotated body under several locks.
///
/// # Errors
/// Those of [`run`].
pub fn run_all<T, E, F, const N: usize>(
    site: &'static Site,
    keys: [Result<LockKey, LockError>; N],
    guard_slot: Option<&GuardSlot<LockSet>>,
    error: fn(LockError) -> E,
    body: Pin<&mut Option<F>>,
) -> impl Future<Output = Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    run_several(site, keys, guard_slot, error, || None, body)
}

/// The same, but a busy lock skips the body.
///
/// # Errors
/// Those of [`run`], a busy lock excepted.
pub fn run_all_or_skip<T, E, F, const N: usize>(
    site: &'static Site,
    keys: [Result<LockKey, LockError>; N],
    guard_slot: Option<&GuardSlot<LockSet>>,
    error: fn(LockError) -> E,
    body: Pin<&mut Option<F>>,
) -> impl Future<Output = Result<T, E>>
where
    T: Skipped,
    F: Future<Output = Result<T, E>>,
{
    run_several(site, keys, guard_slot, error, || Some(T::skipped()), body)
}

/// `skipped` gives what a busy lock gives instead of an error, if anything.
async fn run_one<T, E, F>(
    site: &'static Site,
    key: Result<LockKey, LockError>,
    guard_slot: Option<&GuardSlot<LockGuard>>,
    error: fn(LockError) -> E,
    skipped: fn() -> Option<T>,
    body: Pin<&mut Option<F>>,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    // Boxed as a whole: the future of an annotated function stays small however deep such functions
    // nest.
    Box::pin(async move {
        match enter_site(site, key).await {
            Ok(guard) => under(site, guard, guard_slot, error, body).await,
            Err(refusal) => not_entered(refusal, error, skipped),
        }
    })
    .await
}

/// As [`run_one`], for several locks.
async fn run_several<T, E, F, const N: usize>(
    site: &'static Site,
    keys: [Result<LockKey, LockError>; N],
    guard_slot: Option<&GuardSlot<LockSet>>,
    error: fn(LockError) -> E,
    skipped: fn() -> Option<T>,
    body: Pin<&mut Option<F>>,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    Box::pin(async move {
        match enter_sites(site, keys).await {
            Ok(set) => under_all(site, set, guard_slot, error, body).await,
            Err(refusal) => not_entered(refusal, error, skipped),
        }
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

async fn enter_site(
    site: &'static Site,
    key: Result<LockKey, LockError>,
) -> Result<LockGuard, LockError> {
    let registry = Registry::current()?;
    let want = want(&registry, site, key)?;
    enter(&registry.0, &want, Face::Body).await
}

async fn enter_sites<const N: usize>(
    site: &'static Site,
    keys: [Result<LockKey, LockError>; N],
) -> Result<LockSet, LockError> {
    let registry = Registry::current()?;
    let wants = keys.into_iter().map(|key| want(&registry, site, key));
    let wants = wants.collect::<Result<Vec<_>, _>>()?;
    enter_all(&registry, wants, Face::Body).await
}

fn want(
    registry: &Registry,
    site: &'static Site,
    key: Result<LockKey, LockError>,
) -> Result<Want, LockError> {
    let (template, label) = (site.template(), Cow::Borrowed(site.label()));
    Want::new(&registry.0, key?, template, label, &site.options, site.options.backend)
}

async fn under<T, E, F>(
    site: &'static Site,
    guard: LockGuard,
    guard_slot: Option<&GuardSlot<LockGuard>>,
    error: fn(LockError) -> E,
    body: Pin<&mut Option<F>>,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    if let Some(slot) = guard_slot {
        slot.0.get_or_init(|| guard.view());
    }
    let run = run_guarded([guard], site.options.on_lost, body, Result::is_err);
    run.await.unwrap_or_else(|lock_error| Err(error(lock_error)))
}

async fn under_all<T, E, F>(
    site: &'static Site,
    set: LockSet,
    guard_slot: Option<&GuardSlot<LockSet>>,
    error: fn(LockError) -> E,
    body: Pin<&mut Option<F>>,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let guards = set.into_guards();
    if let Some(slot) = guard_slot {
        slot.0.get_or_init(|| LockSet::new(guards.iter().map(LockGuard::view).collect()));
    }
    let run = run_guarded(guards, site.options.on_lost, body, Result::is_err);
    run.await.unwrap_or_else(|lock_error| Err(error(lock_error)))
}

/// What `assert_locked!` calls.
///
/// # Panics
/// When this task does not hold the lock.
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

/// The transaction that a function receives: the one place that asks for the bound.
pub fn transaction<C: Transactional>(transaction: &mut C) -> &mut dyn Transactional {
    transaction
}

/// Takes the row lock of an annotated function in its caller's transaction.
///
/// # Errors
/// What the function has to return at once instead of running its body.
pub async fn lock_row<T, E>(
    site: &'static Site,
    key: Result<LockKey, LockError>,
    error: fn(LockError) -> E,
    transaction: &mut dyn Transactional,
) -> Result<RowLock, Result<T, E>> {
    let locked = lock_rows_of(site, [key], transaction).await;
    locked.map(only).map_err(|refusal| Err(error(refusal)))
}

/// The same, but a busy lock skips the body.
///
/// # Errors
/// Those of [`lock_row`].
pub async fn lock_row_or_skip<T, E>(
    site: &'static Site,
    key: Result<LockKey, LockError>,
    error: fn(LockError) -> E,
    transaction: &mut dyn Transactional,
) -> Result<RowLock, Result<T, E>>
where
    T: Skipped,
{
    let locked = lock_rows_of(site, [key], transaction).await;
    locked.map(only).map_err(|refusal| not_entered(refusal, error, || Some(T::skipped())))
}

/// Takes several row locks, all or none.
///
/// # Errors
/// Those of [`lock_row`].
pub async fn lock_rows<T, E, const N: usize>(
    site: &'static Site,
    keys: [Result<LockKey, LockError>; N],
    error: fn(LockError) -> E,
    transaction: &mut dyn Transactional,
) -> Result<RowLocks, Result<T, E>> {
    let locked = lock_rows_of(site, keys, transaction).await;
    locked.map_err(|refusal| Err(error(refusal)))
}

/// The same, but a busy lock skips the body.
///
/// # Errors
/// Those of [`lock_row`].
pub async fn lock_rows_or_skip<T, E, const N: usize>(
    site: &'static Site,
    keys: [Result<LockKey, LockError>; N],
    error: fn(LockError) -> E,
    transaction: &mut dyn Transactional,
) -> Result<RowLocks, Result<T, E>>
where
    T: Skipped,
{
    let locked = lock_rows_of(site, keys, transaction).await;
    locked.map_err(|refusal| not_entered(refusal, error, || Some(T::skipped())))
}

async fn lock_rows_of<const N: usize>(
    site: &'static Site,
    keys: [Result<LockKey, LockError>; N],
    transaction: &mut dyn Transactional,
) -> Result<RowLocks, LockError> {
    // Boxed as a whole, as for leases.
    Box::pin(async move {
        let keys = keys.into_iter().collect::<Result<Vec<_>, _>>()?;
        let wait = site.options.wait.unwrap_or(DEFAULT_WAIT.into());
        let mode =
            if site.options.sharing == Sharing::Shared { Mode::Shared } else { Mode::Exclusive };
        let terms = Terms::new(wait, false).with_mode(mode);
        lock_valid(transaction, site.template(), keys, terms).await
    })
    .await
}

fn only(locks: RowLocks) -> RowLock {
    locks.into_locks().remove(0)
}
