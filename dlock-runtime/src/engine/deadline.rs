//! How long a call waits for a lock, and for the answer to each of its requests.

use std::time::Duration;

use tokio::time::Instant;

use super::NamedBackend;
use super::request::Request;
use crate::backend::Answer;
use crate::clock::{self, Moment};
use crate::error::{BackendError, HeldBy, LockError};
use crate::options::Wait;
use crate::timer;

/// The least time that a request has to be answered, however short the `wait`. A `wait` limits the waiting for a
/// holder: with `wait = "0s"`, the answer to the only attempt must still arrive.
pub(super) const MIN_ANSWER_TIME: Duration = Duration::from_secs(1);

/// When a call stops waiting for the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    began: Moment,
    limit: Option<Duration>,
}

impl Deadline {
    pub(super) fn new(wait: Wait) -> Self {
        let limit = match wait {
            Wait::UpTo(limit) => Some(limit),
            Wait::Forever => None,
        };
        Self { began: Moment::now(), limit }
    }

    /// When the call began.
    pub(super) fn began(&self) -> Moment {
        self.began
    }

    pub(super) fn waited(&self) -> Duration {
        clock::instant().saturating_duration_since(self.began.instant())
    }

    pub(super) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.waited() >= limit)
    }

    /// Whether the caller does not wait for a holder at all.
    pub(super) fn is_immediate(&self) -> bool {
        self.limit == Some(Duration::ZERO)
    }

    /// How much longer the caller waits at that moment.
    pub(super) fn left_at(&self, now: &Moment) -> Duration {
        let waited = now.instant().saturating_duration_since(self.began.instant());
        self.limit.map_or(Duration::MAX, |limit| limit.saturating_sub(waited))
    }

    /// Whether there is time to wait for an answer and then for a holder.
    pub(super) fn allows_queueing(&self) -> bool {
        self.limit.is_none_or(|limit| limit >= MIN_ANSWER_TIME)
    }

    fn instant(&self) -> Option<Instant> {
        self.limit.and_then(|limit| self.began.instant().checked_add(limit))
    }

    /// When a request that is sent now times out.
    fn answer_by(&self) -> Option<Instant> {
        self.instant().map(|instant| instant.max(clock::instant() + MIN_ANSWER_TIME))
    }

    /// Awaits the future until the deadline. `None`: the deadline passed first.
    pub(super) async fn bound<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        match self.instant() {
            Some(instant) => timer::timeout_at(instant, future).await.ok(),
            None => Some(future.await),
        }
    }

    /// Awaits a store's answer until the request times out.
    pub(super) async fn answer<T: Unpin>(
        &self,
        backend: &NamedBackend,
        answer: Answer<'_, Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let limit = if answer.is_ready() { None } else { self.answer_by() };
        let Some(limit) = limit else { return answer.await };
        timer::timeout_at(limit, answer).await.unwrap_or_else(|_| Err(unanswered(backend)))
    }

    pub(super) fn busy(&self, request: &Request<'_>, holder: HeldBy) -> LockError {
        LockError::Busy { key: request.key.clone(), waited: self.waited(), holder }
    }
}

pub(super) fn unanswered(backend: &NamedBackend) -> BackendError {
    BackendError::transient(format!("backend `{}` did not answer in time", backend.name))
}
