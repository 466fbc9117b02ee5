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
pub(super) struct Ask<T> {
    node: usize,
    answer: BoxFuture<'static, Result<T, BackendError>>,
}

/// Such a request.
pub(super) fn ask<T>(
    node: usize,
    request: impl Future<Output = Result<T, BackendError>> + Send + 'static,
) -> Ask<T> {
    Ask { node, answer: Box::pin(request) }
}

/// Hands on answers as they come, until all are there or the time is up. When `hear` says that it has
/// heard enough, the others are given as long again as these took. Gives back the numbers of those who have
/// not answered.
///
/// Those who are slower are left to answer in the background, as long as their connection lets them: so a
/// peer that has vanished is noticed, and a slow one is not taken for one.
///
/// Cancel safe: what is not answered yet is dropped.
pub(super) async fn gather<T: Send + 'static>(
    asks: Vec<Ask<T>>,
    limit: Duration,
    mut hear: impl FnMut(usize, Result<T, BackendError>) -> bool,
) -> Vec<usize> {
    let began = Instant::now();
    let mut silent: Vec<_> = asks.iter().map(|ask| ask.node).collect();
    let numbered = |Ask { node, answer }| async move { (node, answer.await) };
    let mut asking: FuturesUnordered<_> = asks.into_iter().map(numbered).collect();
    let mut until = began + limit;
    while let Ok(Some((node, answer))) = timeout_at(until, asking.next()).await {
        silent.retain(|other| *other != node);
        if hear(node, answer) {
            until = until.min(Instant::now() + began.elapsed().max(GRACE));
        }
    }
    if !asking.is_empty() {
        tokio::spawn(asking.for_each(|_| std::future::ready(())));
    }
    silent
}
