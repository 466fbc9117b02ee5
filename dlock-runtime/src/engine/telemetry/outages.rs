//! Logs an outage of a backend when it begins, in summaries while it lasts, and when it is over, instead of once per call
//! and retry.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Labels, meters};
use crate::error::BackendError;

/// The time between two summaries.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long a backend must not have failed for the next success to end its outage.
const SETTLED: Duration = Duration::from_secs(1);

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Acquire,
    Renew,
    Release,
    Watch,
}

impl Operation {
    pub(super) const ALL: [Self; 4] = [Self::Acquire, Self::Renew, Self::Release, Self::Watch];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Renew => "renew",
            Self::Release => "release",
            Self::Watch => "watch",
        }
    }
}

/// The outages of one backend.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    /// Whether there is one now: known without the mutex, because every success asks.
    is_out: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    present: Option<Outage>,
    /// When the beginning of an outage was logged last. If outages follow each other, they are logged as one.
    announced: Option<Instant>,
}

#[derive(Debug)]
struct Outage {
    /// Its beginning was logged.
    is_announced: bool,
    began: Instant,
    last_failure: Instant,
    logged: Instant,
    since_logged: Counts,
    in_all: Counts,
}

/// How many requests failed, by operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts([u64; 4]);

impl Counts {
    fn add(&mut self, operation: Operation) {
        self.0[operation as usize] += 1;
    }
}

/// `40000 acquire, 3 renew`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = Operation::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0);
        for (at, (operation, count)) in counted.enumerate() {
            let separator = if at > 0 { ", " } else { "" };
            write!(f, "{separator}{count} {}", operation.name())?;
        }
        Ok(())
    }
}

/// What to log.
#[derive(Debug, PartialEq, Eq)]
enum Report {
    Began,
    Continues { lasts: Duration, since_logged: Counts },
    Over { lasted: Duration, in_all: Counts },
}

impl Outages {
    /// Notes a failed request.
    pub(crate) fn failed(&self, labels: Labels<'_>, operation: Operation, error: &BackendError) {
        meters::store_failed(labels.store, operation);
        let Labels { template, key, store } = labels;
        let backend = store.name();
        match self.note(operation) {
            Some(Report::Began) => tracing::warn!(
                target: "dlock",
                template,
                %key,
                backend,
                operation = operation.name(),
                %error,
                "backend failed"
            ),
            Some(Report::Continues { lasts, since_logged }) => tracing::warn!(
                target: "dlock",
                backend,
                ?lasts,
                failed = %since_logged,
                %error,
                "backend still fails (`failed`: requests since the last such event)"
            ),
            Some(Report::Over { .. }) | None => {}
        }
    }

    /// Notes a request that the backend answered.
    pub(crate) fn answered(&self, backend: &str) {
        if !self.is_out.load(Ordering::Relaxed) {
            return;
        }
        if let Some(Report::Over { lasted, in_all }) = self.settle() {
            tracing::info!(target: "dlock", backend, ?lasted, failed = %in_all, "backend answers again");
        }
    }

    fn note(&self, operation: Operation) -> Option<Report> {
        let now = Instant::now();
        let is_over = |since: Instant| now.saturating_duration_since(since) >= INTERVAL;
        let mut state = self.state();
        let State { present, announced } = &mut *state;
        // A watch that fails makes its waiter poll. The store may answer everything else.
        if present.is_none() && operation == Operation::Watch {
            return None;
        }
        let is_new = present.is_none();
        let outage = present.get_or_insert_with(|| Outage::new(now));
        outage.last_failure = now;
        outage.in_all.add(operation);
        if is_new {
            self.is_out.store(true, Ordering::Relaxed);
            outage.is_announced = announced.is_none_or(is_over);
            if outage.is_announced {
                *announced = Some(now);
                return Some(Report::Began);
            }
        }
        outage.since_logged.add(operation);
        if !is_over(outage.logged) {
            return None;
        }
        outage.logged = now;
        outage.is_announced = true;
        let since_logged = std::mem::take(&mut outage.since_logged);
        Some(Report::Continues { lasts: now - outage.began, since_logged })
    }

    fn settle(&self) -> Option<Report> {
        let now = Instant::now();
        let mut state = self.state();
        // Until then, other requests may still fail, and each would be a new outage.
        let settled =
            |outage: &mut Outage| now.saturating_duration_since(outage.last_failure) >= SETTLED;
        let outage = state.present.take_if(settled)?;
        self.is_out.store(false, Ordering::Relaxed);
        let Outage { began, last_failure, in_all, is_announced, .. } = outage;
        is_announced.then(|| Report::Over { lasted: last_failure - began, in_all })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outage {
    fn new(began: Instant) -> Self {
        Self {
            is_announced: false,
            began,
            last_failure: began,
            logged: began,
            since_logged: Counts::default(),
            in_all: Counts::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_reported_once_then_in_summaries_and_when_it_is_over() {
        let outages = Outages::default();
        assert_eq!(outages.note(Operation::Renew), Some(Report::Began));
        for _ in 0..40_000 {
            assert_eq!(outages.note(Operation::Acquire), None);
        }
        tokio::time::advance(INTERVAL).await;
        let since_logged = Counts([40_001, 0, 0, 0]);
        let summary = Report::Continues { lasts: INTERVAL, since_logged };
        assert_eq!(outages.note(Operation::Acquire), Some(summary));
        assert_eq!(outages.note(Operation::Release), None);
        assert_eq!(outages.settle(), None, "requests may still fail");
        tokio::time::advance(SETTLED).await;
        let in_all = Counts([40_001, 1, 1, 0]);
        assert_eq!(outages.settle(), Some(Report::Over { lasted: INTERVAL, in_all }));
        assert_eq!(in_all.to_string(), "40001 acquire, 1 renew, 1 release");
        assert_eq!(outages.note(Operation::Acquire), Some(Report::Began), "the next outage");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_come_and_go_are_not_logged_each_time() {
        let outages = Outages::default();
        assert_eq!(outages.note(Operation::Watch), None);
        assert_eq!(outages.note(Operation::Acquire), Some(Report::Began));
        let mut reports = 0;
        for _ in 0..30 {
            tokio::time::advance(SETTLED * 2).await;
            reports += usize::from(outages.settle().is_some());
            reports += usize::from(outages.note(Operation::Acquire).is_some());
        }
        // In a minute.
        assert!(reports <= 12, "{reports}");
    }
}
