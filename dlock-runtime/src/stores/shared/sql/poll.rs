//! Watches a key by polling, for databases that send no notifications.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::error::BackendError;

/// Short, because most locks are held only briefly.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// Bounds the load that a waiting process puts on the server.
const LONGEST_PAUSE: Duration = Duration::from_millis(40);

/// Polls the holders of the key until one of those in `seen` is gone, or nobody holds the key. Never
/// resolves after a poll has failed: the engine polls on its own anyway.
pub(crate) async fn until_a_holder_leaves<F>(seen: &mut Vec<u64>, holders: impl Fn() -> F)
where
    F: Future<Output = Result<Vec<u64>, BackendError>>,
{
    let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        tokio::time::sleep(pauses.pause()).await;
        let Ok(holders) = holders().await else { return std::future::pending().await };
        let one_less = seen.iter().any(|one| !holders.contains(one));
        *seen = holders;
        if one_less || seen.is_empty() {
            return;
        }
    }
}
