//! Watching a key by looking, for databases that tell nobody.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::error::BackendError;

/// The first look comes soon: most locks are held for a short while.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// A waiting process costs the server at most so often a look.
const LONGEST_PAUSE: Duration = Duration::from_millis(40);

/// Looks until `is_held` says no. Never ends when it cannot be told: the engine's own tries go on.
pub(crate) async fn until_free<F>(is_held: impl Fn() -> F)
where
    F: Future<Output = Result<bool, BackendError>>,
{
    let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        tokio::time::sleep(pauses.pause()).await;
        match is_held().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return std::future::pending().await,
        }
    }
}
