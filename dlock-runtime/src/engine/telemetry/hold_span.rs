//! The span `lock.hold`: a body under its locks.

use std::time::Duration;

use tracing::Span;
use tracing::field::Empty;

use super::Labels;
use super::acquire_span::Each;
use crate::token::FencingToken;

/// The span of a body. Its token is that of the first lock.
pub(crate) struct HoldSpan(Span);

impl HoldSpan {
    pub(crate) fn begin<'a, I>(locks: impl Fn() -> I, token: FencingToken, site: &str) -> Self
    where
        I: Iterator<Item = Labels<'a>>,
    {
        let span = tracing::debug_span!(
            target: "dlock",
            "lock.hold",
            "otel.status_code" = Empty,
            "error.type" = Empty,
            "code.function.name" = site,
            "dlock.template" = %Each(|| locks().map(|labels| labels.template)),
            "dlock.key" = %Each(|| locks().map(|labels| labels.key)),
            "dlock.backend" = %Each(|| locks().take(1).map(|labels| labels.store.name().to_owned())),
            "dlock.token" = token.get(),
            "dlock.held" = Empty,
            "dlock.outcome" = Empty,
        );
        Self(span)
    }

    pub(crate) fn none() -> Self {
        Self(Span::none())
    }

    pub(crate) fn span(&self) -> &Span {
        &self.0
    }

    /// Records how the body ended.
    pub(crate) fn end(&self, held: impl FnOnce() -> Duration, outcome: &'static str) {
        if self.0.is_disabled() {
            return;
        }
        self.0.record("dlock.held", held().as_secs_f64());
        self.0.record("dlock.outcome", outcome);
        if outcome != "completed" {
            self.0.record("otel.status_code", "ERROR");
            self.0.record("error.type", outcome);
        }
    }
}
