//! The span `lock.acquire`: one call from its start until it has its lock or fails.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;
use tracing::field::Empty;

use super::{Labels, meters};
use crate::error::LockError;
use crate::token::FencingToken;

/// One call that acquires a lock, or several locks in one step.
///
/// The fields are attributes in OpenTelemetry's form: named with a prefix of their own, durations in seconds.
pub(crate) struct AcquireSpan<'a> {
    first: Labels<'a>,
    /// The other locks of a set, in the order of their keys.
    others: Vec<Labels<'a>>,
    /// The caller skips its body if the lock is busy.
    skips: bool,
    /// `None` if nothing observes the call, because reading the clock is a large part of its cost.
    began: Option<Instant>,
    span: Span,
}

impl<'a> AcquireSpan<'a> {
    pub(crate) fn begin(first: Labels<'a>, others: Vec<Labels<'a>>, skips: bool) -> Self {
        let span = tracing::debug_span!(
            target: "dlock",
            "lock.acquire",
            "otel.kind" = "client",
            "otel.status_code" = Empty,
            "error.type" = Empty,
            "dlock.template" = %Each(|| all(first, &others).map(|labels| labels.template)),
            "dlock.key" = %Each(|| all(first, &others).map(|labels| labels.key)),
            "dlock.backend" = first.store.name(),
            "dlock.wait" = Empty,
            "dlock.token" = Empty,
            "dlock.outcome" = Empty,
        );
        let observed = cfg!(feature = "metrics") || !span.is_disabled();
        let began = observed.then(Instant::now);
        Self { first, others, skips, began, span }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn end(self, entered: Result<FencingToken, &LockError>) {
        let outcome = self.outcome(entered);
        #[cfg(feature = "sim")]
        if entered.is_err() {
            crate::sim::note_refused(self.first.key, outcome);
        }
        if outcome == "skipped" {
            self.skipped();
        }
        let Some(waited) = self.began.map(|began| began.elapsed()) else { return };
        if !self.span.is_disabled() {
            self.record(entered, outcome, waited);
        }
        for labels in all(self.first, &self.others) {
            meters::acquired(labels, outcome, waited);
        }
    }

    fn outcome(&self, entered: Result<FencingToken, &LockError>) -> &'static str {
        match entered {
            Ok(_) => "acquired",
            Err(LockError::Busy { .. }) if self.skips => "skipped",
            Err(LockError::Busy { .. }) => "busy",
            Err(LockError::Lost { .. }) => "lost",
            Err(_) => "failed",
        }
    }

    fn skipped(&self) {
        let Labels { template, key, store } = self.first;
        tracing::info!(target: "dlock", template, %key, backend = store.name(), "lock busy; body skipped");
    }

    fn record(
        &self,
        entered: Result<FencingToken, &LockError>,
        outcome: &'static str,
        waited: Duration,
    ) {
        self.span.record("dlock.wait", waited.as_secs_f64());
        self.span.record("dlock.token", entered.ok().map(FencingToken::get));
        self.span.record("dlock.outcome", outcome);
        if let Err(error) = entered
            && outcome != "skipped"
        {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", outcome);
            let (hint, source) = (error.hint(), error.source());
            self.span.in_scope(
                || tracing::debug!(target: "dlock", ?waited, outcome, %error, source, hint, "lock not acquired"),
            );
            return;
        }
        self.span.in_scope(
            || tracing::debug!(target: "dlock", ?waited, outcome, "lock acquire finished"),
        );
    }
}

fn all<'a, 's>(
    first: Labels<'a>,
    others: &'s [Labels<'a>],
) -> impl Iterator<Item = Labels<'a>> + use<'a, 's> {
    std::iter::once(first).chain(others.iter().copied())
}

/// A list of values, separated by commas. It is made only if somebody reads it.
pub(super) struct Each<F>(pub(super) F);

impl<F, I> fmt::Display for Each<F>
where
    F: Fn() -> I,
    I: Iterator<Item: fmt::Display>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, value) in (self.0)().enumerate() {
            let separator = if at > 0 { ", " } else { "" };
            write!(f, "{separator}{value}")?;
        }
        Ok(())
    }
}
