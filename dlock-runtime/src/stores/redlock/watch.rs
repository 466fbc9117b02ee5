//! Waiting for a message from any of the nodes.

use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::backend::{Answer, Watch};
use crate::stores::redis::subscriptions::ChannelWatch;

/// The longest pause between the first message and the wake-up. Every node announces a release: a waiter must
/// not retry before the last node has executed it, and waiters must not all retry at the same moment.
const JITTER: Duration = Duration::from_millis(4);

/// A subscription to one key on enough nodes that every majority includes one of them.
pub(super) struct QuorumWatch {
    watches: Vec<ChannelWatch>,
    /// A message has arrived, and the waiter is woken at this instant.
    wake_at: Option<Instant>,
}

impl QuorumWatch {
    pub(super) fn new(watches: Vec<ChannelWatch>) -> Self {
        Self { watches, wake_at: None }
    }

    async fn next(&mut self) {
        if self.wake_at.is_none() {
            self.any().await;
            self.wake_at = Some(Instant::now() + JITTER.mul_f64(rand::random_range(0.1..=1.0)));
        }
        if let Some(until) = self.wake_at {
            tokio::time::sleep_until(until).await;
        }
        // Messages that other nodes have sent meanwhile are about the same release. If one is not, the waiter
        // that retries now sees its effect anyway.
        for watch in &mut self.watches {
            let _ = watch.changed().now_or_never();
        }
        self.wake_at = None;
    }

    /// Waits for a message from any node.
    async fn any(&mut self) {
        let mut changes: Vec<_> = self.watches.iter_mut().map(Watch::changed).collect();
        std::future::poll_fn(|cx| {
            let is_ready = changes.iter_mut().any(|change| change.poll_unpin(cx).is_ready());
            if is_ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Watch for QuorumWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(self.next())
    }
}
