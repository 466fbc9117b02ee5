//! Renewals in requests of several leases, each with its own timeout and its own outcome.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;

use super::Watchdog;
use crate::backend::{Answers, Backend as _, Claim, MAX_BATCH, Renewal};
use crate::clock::Moment;
use crate::engine::NamedBackend;
use crate::engine::hold::{InFlight, Renewed};
use crate::engine::telemetry;
use crate::error::BackendError;
use crate::timer::{Sleep, sleep_until};

/// Renewals to send, by backend.
#[derive(Default)]
pub(super) struct Batches(Vec<Batch>);

/// The renewals of one request.
pub(super) struct Batch {
    backend: Arc<NamedBackend>,
    renewals: Vec<InFlight>,
}

impl Batches {
    pub(super) fn of(renewal: InFlight) -> Self {
        let mut batches = Self::default();
        batches.add(renewal);
        batches
    }

    pub(super) fn add(&mut self, renewal: InFlight) {
        let Some(hold) = renewal.hold() else { return };
        let backend = hold.backend();
        // The last one of a backend is the one with room.
        let batch = self.0.iter_mut().rev().find(|batch| Arc::ptr_eq(&batch.backend, backend));
        if let Some(batch) = batch.filter(|batch| batch.renewals.len() < MAX_BATCH) {
            batch.renewals.push(renewal);
        } else {
            let backend = Arc::clone(backend);
            self.0.push(Batch { backend, renewals: vec![renewal] });
        }
    }

    /// How many more renewals fit into the requests that will be sent.
    pub(super) fn room(&self) -> usize {
        self.0.iter().map(|batch| MAX_BATCH - batch.renewals.len()).sum()
    }

    pub(super) fn take(self) -> Vec<Batch> {
        self.0
    }
}

/// Sends one request, and applies each answer to its hold as it arrives.
///
/// If this future is dropped, the holds whose renewals are unanswered are marked in doubt.
pub(super) async fn renew(watchdog: &Watchdog, batch: Batch) {
    let sent = Moment::now();
    let Batch { backend, renewals } = batch;
    let claims: Vec<Claim> = renewals.iter().filter_map(InFlight::claim).collect();
    let mut unanswered = Unanswered::new(watchdog, &backend, renewals, sent);
    // A backend that panics must not affect the other holds.
    let asked = catch_unwind(AssertUnwindSafe(|| backend.store.renew_many(&claims)));
    let Ok(mut answers) = asked else { return unanswered.fail_all("panicked in") };
    while unanswered.any() {
        match next(&mut answers, &unanswered).await {
            Next::Answer(at, answer) => {
                let now = Moment::now();
                unanswered.settle(at, answer, &now);
                // These had arrived before the clock was read, too.
                while let Some((at, answer)) = answers.next_ready() {
                    unanswered.settle(at, answer, &now);
                }
            }
            Next::NoMore => return unanswered.fail_all("did not answer"),
            Next::TimeOut => unanswered.fail_overdue(),
        }
    }
}

enum Next {
    Answer(usize, Result<Renewal, BackendError>),
    NoMore,
    TimeOut,
}

/// Waits for the next answer, or for the timeout of the first renewal that is unanswered.
async fn next(answers: &mut Answers<'_, Renewal>, unanswered: &Unanswered<'_>) -> Next {
    let timeout: Option<Sleep> = None;
    let mut timeout = pin!(timeout);
    let mut answer = pin!(answers.next());
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(
                answer.map_or(Next::NoMore, |(at, answer)| Next::Answer(at, answer)),
            );
        }
        // Only now, because an answer that is ready needs no timer.
        if timeout.is_none() {
            timeout.set(unanswered.first_timeout().map(sleep_until));
        }
        match timeout.as_mut().as_pin_mut() {
            Some(timeout) => timeout.poll(cx).map(|()| Next::TimeOut),
            None => Poll::Pending,
        }
    })
    .await
}

/// The renewals of a request that have no outcome yet.
struct Unanswered<'a> {
    watchdog: &'a Watchdog,
    backend: &'a NamedBackend,
    sent: Moment,
    /// In the order of the claims. `None` once there is an outcome.
    renewals: Vec<Option<InFlight>>,
    left: usize,
    /// When each renewal times out, the earliest last.
    timeouts: Vec<(Instant, usize)>,
}

impl<'a> Unanswered<'a> {
    fn new(
        watchdog: &'a Watchdog,
        backend: &'a NamedBackend,
        renewals: Vec<InFlight>,
        sent: Moment,
    ) -> Self {
        let timeout = |(at, renewal): (usize, &InFlight)| {
            let timeout = renewal.hold().map(|hold| hold.attempt_timeout(&sent));
            (sent.after(timeout.unwrap_or_default()), at)
        };
        let mut timeouts: Vec<_> = renewals.iter().enumerate().map(timeout).collect();
        timeouts.sort_unstable_by(|one, other| other.cmp(one));
        let left = renewals.len();
        let renewals = renewals.into_iter().map(Some).collect();
        Self { watchdog, backend, sent, renewals, left, timeouts }
    }

    fn any(&self) -> bool {
        self.left > 0
    }

    fn first_timeout(&self) -> Option<Instant> {
        let open = |(_, at): &&(Instant, usize)| self.renewals[*at].is_some();
        self.timeouts.iter().rev().find(open).map(|(timeout, _)| *timeout)
    }

    /// Applies an outcome. `now` must have been read after the answer arrived: only a hold whose proof was still valid
    /// then is renewed by it.
    fn settle(&mut self, at: usize, answer: Result<Renewal, BackendError>, now: &Moment) {
        let Some(renewal) = self.renewals.get_mut(at).and_then(Option::take) else { return };
        self.left -= 1;
        let Some(hold) = renewal.hold().map(Arc::clone) else { return };
        let renewed = match answer {
            Ok(Renewal::Renewed { validity }) => {
                // The store was asked for the ttl and the grace.
                Renewed::For(hold.validity_of(validity))
            }
            Ok(Renewal::NotHeld) => Renewed::NotHeld,
            Err(error) => {
                let remaining = hold.remaining();
                let outages = &self.backend.outages;
                telemetry::renewal_failed(hold.labels(), outages, remaining, &error);
                Renewed::Failed { executed: error.may_have_been_sent() }
            }
        };
        let step = renewal.settle(self.sent, renewed, now);
        self.watchdog.follow(&hold, &step);
        // Last, because this calls the application's recorder and subscriber, which may panic.
        if let Renewed::For(_) = renewed {
            telemetry::renewed(hold.labels());
            self.backend.outages.answered(&self.backend.name);
        }
    }

    fn fail_overdue(&mut self) {
        let now = Moment::now();
        while let Some((timeout, at)) = self.timeouts.pop() {
            if timeout > now.instant() && self.renewals[at].is_some() {
                self.timeouts.push((timeout, at));
                return;
            }
            self.settle(at, Err(self.failure("did not answer in time to")), &now);
        }
    }

    fn fail_all(&mut self, how: &str) {
        let now = Moment::now();
        for at in 0..self.renewals.len() {
            self.settle(at, Err(self.failure(how)), &now);
        }
    }

    fn failure(&self, how: &str) -> BackendError {
        BackendError::transient(format!("backend `{}` {how} a renewal", self.backend.name))
    }
}

impl InFlight {
    fn claim(&self) -> Option<Claim> {
        self.hold().map(|hold| hold.claim.clone())
    }
}
