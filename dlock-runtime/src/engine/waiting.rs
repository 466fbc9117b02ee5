//! How a waiter learns that a busy key may be free: the store notifies it, or it polls.

use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use super::NamedBackend;
use super::deadline::Deadline;
use super::request::Request;
use super::telemetry::Operation;
use crate::backend::{Backend, Claim, Watch};
use crate::backoff::Backoff;
use crate::{chance, timer};

/// The longest pause between two attempts of a waiter that is notified, in case a notification gets lost.
const SAFETY_NET: Duration = Duration::from_secs(1);

/// Waits between the attempts of one acquire.
pub(super) struct Waiting {
    /// A watch, and the index of the busy key that it watches.
    watched: Option<(usize, Box<dyn Watch>)>,
    failures: Backoff,
    polls: Backoff,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            watched: None,
            failures: Backoff::new(Duration::from_millis(20), SAFETY_NET),
            polls: Backoff::new(Duration::from_millis(4), SAFETY_NET / 4),
        }
    }

    /// Takes over the watch of the key at this index from a task of this process that waited before.
    pub(super) fn inherit(&mut self, at: usize, watch: Option<Box<dyn Watch>>) {
        self.watched = watch.map(|watch| (at, watch));
    }

    /// The watch of the key at this index, for the next task of this process.
    pub(super) fn into_watch(self, at: usize) -> Option<Box<dyn Watch>> {
        self.watched.filter(|(watched, _)| *watched == at).map(|(_, watch)| watch)
    }

    /// Waits for a reason to ask again after the store found `request`, the one at index `at`, busy.
    ///
    /// `claim`: the claim that asks again, if it does so alone.
    ///
    /// `queued`: the claim waits in the store's queue. It has to ask again after `expires_in`, because others pass a
    /// waiter that stays silent.
    pub(super) async fn for_change(
        &mut self,
        request: &Request<'_>,
        at: usize,
        claim: Option<&Claim>,
        expires_in: Option<Duration>,
        queued: bool,
        deadline: &Deadline,
    ) {
        if self.watched.as_ref().is_none_or(|(key, _)| *key != at) {
            let limit = expires_in.filter(|_| queued);
            let watch = watch_key(request, claim, limit, deadline).await;
            self.watched = watch.map(|watch| (at, watch));
            if self.watched.is_some() {
                // The key may have been released before the watch was set up: ask again at once.
                return;
            }
        }
        let pause = self.pause(request.backend, expires_in);
        let watch = self.watched.as_mut().map(|(_, watch)| watch);
        deadline.bound(changed_within(watch, pause)).await;
    }

    /// Waits after a failure. The failure may have broken the watch too, so the next one is new.
    pub(super) async fn after_failure(&mut self, deadline: &Deadline) {
        self.watched = None;
        self.back_off(deadline).await;
    }

    pub(super) async fn back_off(&mut self, deadline: &Deadline) {
        deadline.bound(timer::sleep(self.failures.pause())).await;
    }

    /// How long to sleep if nothing changes: until the present lease expires, or until the next poll, whichever
    /// comes first.
    fn pause(&mut self, backend: &NamedBackend, expires_in: Option<Duration>) -> Duration {
        let notified = self.watched.is_some() && backend.capabilities.push;
        let longest = if notified {
            SAFETY_NET.mul_f64(chance::between(0.5, 1.0))
        } else {
            self.polls.pause()
        };
        // One millisecond later than stated: in its last millisecond the lease may still be valid.
        expires_in.map_or(longest, |left| longest.min(left + Duration::from_millis(1)))
    }
}

async fn watch_key(
    request: &Request<'_>,
    claim: Option<&Claim>,
    limit: Option<Duration>,
    deadline: &Deadline,
) -> Option<Box<dyn Watch>> {
    let store = &request.backend.store;
    let watching = match claim {
        Some(claim) => store.watch_for(claim),
        None => store.watch(&request.key),
    };
    let watching = async {
        match limit {
            Some(limit) => timer::timeout(limit, watching).await.ok(),
            None => Some(watching.await),
        }
    };
    match deadline.bound(watching).await?? {
        Ok(watch) => Some(watch),
        Err(error) => {
            let outages = &request.backend.outages;
            outages.failed(request.labels(), Operation::Watch, &error);
            None
        }
    }
}

/// Resolves at a change, or after `pause` without one.
async fn changed_within(watch: Option<&mut Box<dyn Watch>>, pause: Duration) {
    let Some(watch) = watch else {
        return timer::sleep(pause).await;
    };
    let mut changed = watch.changed();
    let mut sleep = pin!(timer::sleep(pause));
    std::future::poll_fn(|cx| {
        if Pin::new(&mut changed).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        sleep.as_mut().poll(cx)
    })
    .await;
}
