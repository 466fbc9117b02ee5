//! Asking several nodes at once.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use crate::error::BackendError;

/// How long those who are not needed any more may still take, at least: an answer tells what is to be
/// undone there, silence leaves it open.
pub(super) const GRACE: Duration = Duration::from_millis(2);

/// A request under way to the node of this number.
pub(super) type Ask<'a, T> = BoxFuture<'a, (usize, Result<T, BackendError>)>;

/// Such a request.
pub(super) fn ask<'a, T>(
    node: usize,
    request: impl Future<Output = Result<T, BackendError>> + Send + 'a,
) -> Ask<'a, T> {
    Box::pin(async move { (node, request.await) })
}

/// Hands on answers as they come, until all are there or the time is up. When `hear` says that it has
/// heard enough, the others are given as long again as these took.
pub(super) async fn gather<T: Send>(
    asks: Vec<Ask<'_, T>>,
    limit: Duration,
    mut hear: impl FnMut(usize, Result<T, BackendError>) -> bool,
) {
    let began = Instant::now();
    let mut asking: FuturesUnordered<_> = asks.into_iter().collect();
    let mut until = began + limit;
    while let Ok(Some((node, answer))) = timeout_at(until, asking.next()).await {
        if hear(node, answer) {
            until = until.min(Instant::now() + began.elapsed().max(GRACE));
        }
    }
}
