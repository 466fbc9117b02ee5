//! Telemetry: `tracing` spans and events under the target `dlock`, and metrics behind the feature
//! `metrics`.
//!
//! Metrics are labelled with the key *template*, the backend's name and an outcome. They are never
//! labelled with the key, because every value would create its own time series.

mod throttle;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;
use tracing::field::Empty;

use crate::error::{BackendError, LockError, LostReason};
use crate::key::LockKey;
use crate::token::FencingToken;

pub(crate) use self::throttle::Failures;

/// The fields that identify a lock in spans, events and metrics.
#[derive(Clone, Copy)]
pub(crate) struct Labels<'a> {
    pub(crate) template: &'static str,
    pub(crate) key: &'a LockKey,
    pub(crate) store: Store<'a>,
}

/// Where a lock lives.
#[derive(Clone, Copy)]
pub(crate) enum Store<'a> {
    /// In the backend with this name.
    Backend(&'a Arc<str>),
    /// In the caller's own transaction.
    Transaction,
}

impl Store<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Backend(name) => name,
            Self::Transaction => "transaction",
        }
    }
}

/// One call from its start until it has its lock or fails: the span `lock.acquire`.
pub(crate) struct Waiting<'a> {
    labels: Labels<'a>,
    /// `None` if nothing observes the call, because reading the clock is a large part of its cost.
    began: Option<Instant>,
    span: Span,
}

impl<'a> Waiting<'a> {
    pub(crate) fn begin(labels: Labels<'a>) -> Self {
        let span = tracing::debug_span!(
            target: "dlock",
            "lock.acquire",
            template = labels.template,
            key = %labels.key,
            backend = labels.store.name(),
            waited = Empty,
            token = Empty,
            outcome = Empty,
        );
        let began = is_observed(&span).then(Instant::now);
        Self { labels, began, span }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn end(self, entered: Result<FencingToken, &LockError>) {
        let outcome = match entered {
            Ok(_) => "acquired",
            Err(LockError::Busy { .. }) => "busy",
            Err(LockError::Lost { .. }) => "lost",
            Err(_) => "failed",
        };
        #[cfg(feature = "sim")]
        if entered.is_err() {
            crate::sim::note_refused(self.labels.key, outcome);
        }
        let Some(waited) = self.began.map(|began| began.elapsed()) else { return };
        let token = entered.ok().map(FencingToken::get);
        if !self.span.is_disabled() {
            self.span.record("waited", tracing::field::debug(waited));
            self.span.record("token", token);
            self.span.record("outcome", outcome);
            self.span.in_scope(
                || tracing::debug!(target: "dlock", ?waited, outcome, "lock acquire finished"),
            );
        }
        meters::acquired(self.labels, outcome, waited);
    }
}

/// Returns true if a metric or a subscriber observes the call of this span.
fn is_observed(span: &Span) -> bool {
    cfg!(feature = "metrics") || !span.is_disabled()
}

/// Creates the span of a body, `lock.hold`. The labels are those of its first lock, and `keys` counts all of them.
pub(crate) fn holding(labels: Labels<'_>, token: FencingToken, keys: usize) -> Span {
    tracing::debug_span!(
        target: "dlock",
        "lock.hold",
        template = labels.template,
        key = %labels.key,
        keys,
        backend = labels.store.name(),
        token = token.get(),
        held = Empty,
        outcome = Empty,
    )
}

/// Records how a body under its locks ended.
pub(crate) fn held(span: &Span, held: impl FnOnce() -> Duration, outcome: &'static str) {
    if !span.is_disabled() {
        span.record("held", tracing::field::debug(held()));
        span.record("outcome", outcome);
    }
}

/// Reports that a lease was released, or has ended while its release was retried.
pub(crate) fn released(labels: Labels<'_>, token: FencingToken, held: impl FnOnce() -> Duration) {
    #[cfg(feature = "sim")]
    crate::sim::note_left(labels.key, token, None);
    if !cfg!(feature = "metrics") && !tracing::enabled!(target: "dlock", tracing::Level::DEBUG) {
        return;
    }
    let age = held();
    tracing::debug!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        token = token.get(),
        held = ?age,
        "lock released"
    );
    meters::released(labels, age);
}

/// Reports that a lease ended before its holder released it.
pub(crate) fn lost(labels: Labels<'_>, token: FencingToken, held: Duration, loss: LostReason) {
    #[cfg(feature = "sim")]
    crate::sim::note_left(labels.key, token, Some(loss));
    tracing::warn!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        token = token.get(),
        ?held,
        reason = %loss,
        "lock lost"
    );
    meters::lost(labels);
}

pub(crate) fn renewal_failed(
    labels: Labels<'_>,
    failures: &Failures,
    remaining: Duration,
    error: &BackendError,
) {
    meters::renewal_failed(labels);
    let Some(more) = failures.renewals.note() else { return };
    tracing::warn!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        ?remaining,
        more,
        %error,
        "lock renewal failed; retrying until the lease ends (`more` counts failures since the last such event)"
    );
}

pub(crate) fn acquire_failed(labels: Labels<'_>, failures: &Failures, error: &BackendError) {
    let Some(more) = failures.acquires.note() else { return };
    tracing::warn!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        more,
        %error,
        "lock acquire failed; retrying until its wait is over (`more` counts failures since the last such event)"
    );
}

/// Logged once per backend and template.
pub(crate) fn permits_disagree(labels: Labels<'_>, own: u32, other: NonZeroU32) {
    tracing::warn!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        own,
        other = other.get(),
        "different numbers of permits are in use for one key; each acquire applies its own"
    );
    meters::permits_disagree(labels);
}

pub(crate) fn watch_failed(labels: Labels<'_>, failures: &Failures, error: &BackendError) {
    let Some(more) = failures.watches.note() else { return };
    tracing::debug!(
        target: "dlock",
        key = %labels.key,
        backend = labels.store.name(),
        more,
        %error,
        "watch failed; the waiter polls instead"
    );
}

pub(crate) fn release_delayed(labels: Labels<'_>, failures: &Failures, error: &BackendError) {
    let Some(more) = failures.releases.note() else { return };
    tracing::warn!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        more,
        %error,
        "lock release failed; retrying in the background until the lease ends (`more` counts failures since the last such event)"
    );
}

pub(crate) fn release_given_up(labels: Labels<'_>, failures: &Failures) {
    let Some(more) = failures.given_up.note() else { return };
    tracing::warn!(
        target: "dlock",
        key = %labels.key,
        backend = labels.store.name(),
        more,
        "gave up releasing the lock; its lease has ended"
    );
}

pub(crate) fn abandon_given_up(labels: Labels<'_>, failures: &Failures, kind: &str) {
    let Some(more) = failures.given_up.note() else { return };
    tracing::warn!(
        target: "dlock",
        key = %labels.key,
        backend = labels.store.name(),
        kind,
        more,
        "an acquire with an unknown outcome could not be undone; if it was granted, it expires after its ttl"
    );
}

#[cfg(feature = "metrics")]
mod meters {
    use std::sync::Arc;
    use std::time::Duration;

    use metrics::{Label, SharedString, counter, histogram};

    use super::{Labels, Store};

    fn of(labels: Labels<'_>) -> Vec<Label> {
        with(labels, None)
    }

    /// In one allocation, because a call has several metrics.
    fn with(labels: Labels<'_>, outcome: Option<&'static str>) -> Vec<Label> {
        let backend: SharedString = match labels.store {
            Store::Backend(name) => Arc::clone(name).into(),
            Store::Transaction => "transaction".into(),
        };
        let mut all = Vec::with_capacity(2 + usize::from(outcome.is_some()));
        all.extend([Label::new("template", labels.template), Label::new("backend", backend)]);
        all.extend(outcome.map(|outcome| Label::new("outcome", outcome)));
        all
    }

    pub(super) fn acquired(labels: Labels<'_>, outcome: &'static str, waited: Duration) {
        histogram!("dlock_wait_seconds", of(labels)).record(waited);
        counter!("dlock_acquires_total", with(labels, Some(outcome))).increment(1);
    }

    pub(super) fn released(labels: Labels<'_>, age: Duration) {
        histogram!("dlock_hold_seconds", of(labels)).record(age);
    }

    pub(super) fn lost(labels: Labels<'_>) {
        counter!("dlock_lost_total", of(labels)).increment(1);
    }

    pub(super) fn permits_disagree(labels: Labels<'_>) {
        counter!("dlock_permits_disagreements_total", of(labels)).increment(1);
    }

    pub(super) fn renewal_failed(labels: Labels<'_>) {
        counter!("dlock_renewal_failures_total", of(labels)).increment(1);
    }
}

/// Without the feature `metrics`, nothing is recorded.
#[cfg(not(feature = "metrics"))]
mod meters {
    use std::time::Duration;

    use super::Labels;

    pub(super) fn acquired(_: Labels<'_>, _: &'static str, _: Duration) {}

    pub(super) fn released(_: Labels<'_>, _: Duration) {}

    pub(super) fn lost(_: Labels<'_>) {}

    pub(super) fn renewal_failed(_: Labels<'_>) {}

    pub(super) fn permits_disagree(_: Labels<'_>) {}
}
