//! Tasks that run under a hold: they stop when it ends, and its lease is released after they have stopped.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Hold, Phase};
use crate::sync::atomic::Ordering;

/// The tasks that were spawned under a hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Children {
    /// Cancelled when the hold ends, is released or is dropped.
    ended: CancellationToken,
    running: TaskTracker,
}

impl Children {
    pub(super) fn stop(&self) {
        self.ended.cancel();
    }
}

impl Hold {
    /// The tasks of this hold. If it has ended, they stop at once.
    fn children(&self) -> Children {
        let mut state = self.state();
        let is_held = state.phase == Phase::Held;
        let children = state.rare().children.get_or_insert_default().clone();
        // Under the lock of the state: whoever closes the hold after this sees it.
        self.has_children.store(true, Ordering::Relaxed);
        drop(state);
        if !is_held {
            children.stop();
        }
        children
    }

    /// Cancelled when the hold ends or is released.
    pub(crate) fn cancellation_token(&self) -> CancellationToken {
        // A child, so that whoever cancels it cancels nothing else.
        self.children().ended.child_token()
    }

    /// Spawns a task that is polled only while the hold is provably valid.
    pub(crate) fn spawn<F>(self: &Arc<Self>, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let children = self.children();
        let task = while_held(Arc::clone(self), children.ended, future);
        children.running.spawn(task)
    }

    /// Whether tasks were spawned under this hold, or its token was asked for: known without the state.
    pub(crate) fn has_children(&self) -> bool {
        self.has_children.load(Ordering::Relaxed)
    }

    /// Tells the tasks of this hold to stop.
    pub(crate) fn cancel_children(&self) {
        let children = self.state().children().cloned();
        if let Some(children) = children {
            children.stop();
        }
    }

    /// Stops the tasks of this hold, and waits until they have stopped. The hold is renewed meanwhile, because a task may
    /// be in a stretch without an await. Cancel safe.
    pub(crate) async fn stop_children(&self) {
        let children = self.state().children().cloned();
        if let Some(Children { ended, running }) = children {
            ended.cancel();
            running.close();
            running.wait().await;
        }
    }
}

/// Polls the future while the hold is valid. `None`: it was dropped because the hold ended.
async fn while_held<F: Future>(
    hold: Arc<Hold>,
    ended: CancellationToken,
    future: F,
) -> Option<F::Output> {
    let mut is_over = pin!(async {
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            _ = hold.ended() => {}
        }
    });
    let mut future = pin!(future);
    poll_fn(|cx| {
        // The end first: from then on, the future is not polled again.
        if ended.is_cancelled() || hold.check().is_err() || is_over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}
