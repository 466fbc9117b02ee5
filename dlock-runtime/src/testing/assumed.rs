//! Locks that a test takes for held.

use crate::key::LockKey;

tokio::task_local! {
    static ASSUMED: Vec<LockKey>;
}

/// Runs a future in which [`assert_locked!`](crate::assert_locked) takes these keys for held, without any
/// lock: for tests of code that asserts its lock.
///
/// It holds for the task that polls the future, and adds to what an outer scope assumes.
///
/// # Cancel safety
/// That of the future.
pub async fn assume_locked<K: Into<LockKey>, F: Future>(
    keys: impl IntoIterator<Item = K>,
    future: F,
) -> F::Output {
    let mut all = ASSUMED.try_with(Clone::clone).unwrap_or_default();
    all.extend(keys.into_iter().map(Into::into));
    ASSUMED.scope(all, future).await
}

pub(crate) fn is_assumed(key: &LockKey) -> bool {
    ASSUMED.try_with(|keys| keys.contains(key)).unwrap_or(false)
}
