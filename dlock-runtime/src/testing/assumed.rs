//! Locks that a test assumes to be held.

use crate::key::LockKey;

tokio::task_local! {
    static ASSUMED: Vec<LockKey>;
}

/// Runs a future in which [`assert_locked!`](crate::assert_locked) treats these keys as held, without
/// acquiring any lock. Use it to test code that asserts its lock.
///
/// It applies only to the task that polls the future. Nested calls add their keys.
///
/// # Cancel safety
/// As cancel safe as the future.
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
