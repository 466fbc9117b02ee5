//! Waiting for a message from any of the nodes.

use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::backend::{Answer, Watch};
use crate::stores::redis::subscriptions::ChannelWatch;

/// A release is told by every node, and those who hear it first must not try before the last one has
/// executed it; nor all at the same moment.
const JITTER: Duration = Duration::from_millis(4);

/// A standing interest in one key, on as many nodes as every majority has one of.
pub(super) struct QuorumWatch {
    watches: Vec<ChannelWatch>,
    /// Something was told, and is to be handed on at this instant.
    told: Option<Instant>,
}

impl QuorumWatch {
    pub(super) fn new(watches: Vec<ChannelWatch>) -> Self {
        Self { watches, told: None }
    }

    async fn next(&mut self) {
        if self.told.is_none() {
            self.any().await;
            self.told = Some(Instant::now() + JITTER.mul_f64(rand::random_range(0.1..=1.0)));
        }
        if let Some(until) = self.told {
            tokio::time::sleep_until(until).await;
        }
        // What the other nodes have told meanwhile is about the same release; if not, whoever looks now
        // sees what came of it.
        for watch in &mut self.watches {
            let _ = watch.changed().now_or_never();
        }
        self.told = None;
    }

    async fn any(&mut self) {
        let mut changes: Vec<_> = self.watches.iter_mut().map(Watch::changed).collect();
        std::future::poll_fn(|cx| {
            let is_told = changes.iter_mut().any(|change| change.poll_unpin(cx).is_ready());
            if is_told { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Watch for QuorumWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(self.next())
    }
}
