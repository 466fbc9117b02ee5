//! Polling a key, for databases that do not notify.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::error::BackendError;

/// The first poll comes soon: most locks are held for a short while.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// Limits how often a waiting process polls the server.
const LONGEST_PAUSE: Duration = Duration::from_millis(40);

/// Polls the holders of the key until one of those `seen` is gone, or nobody holds it. On an error it never ends: the
/// engine's own retries go on.
pub(crate) async fn until_one_less<F>(seen: &mut Vec<u64>, holders: impl Fn() -> F)
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
