//! What operators see: `tracing` spans and events under the target `dlock`, and counters behind the
//! feature `metrics`.
//!
//! Labels of metrics are the key *template*, the backend's name and an outcome: never the key, whose
//! values would make a time series each.

mod throttle;

use std::num::NonZeroU32;

use tokio::time::Instant;
use tracing::Span;
use tracing::field::Empty;

use crate::backend::{Backend, Claim, Sharing};
use crate::engine::{Hold, Want};
use crate::error::{BackendError, LockError, Loss};
use crate::guard::LockGuard;
use crate::key::LockKey;
use crate::registry::Registered;
use crate::token::FencingToken;

pub(crate) use self::throttle::Failures;

/// Where a lock lives.
#[derive(Clone, Copy)]
enum Store<'a> {
    Registered(&'a Registered),
    /// In the caller's own transaction.
    Transaction,
}

impl Store<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Registered(backend) => &backend.name,
            Self::Transaction => "transaction",
        }
    }
}

/// One call's way to its lock: the span `lock.acquire`.
pub(crate) struct Waiting<'a> {
    template: &'static str,
    store: Store<'a>,
    /// `None` when nobody looks: reading the clock is a good part of what a call costs.
    began: Option<Instant>,
    span: Span,
}

impl<'a> Waiting<'a> {
    pub(crate) fn begin(want: &'a Want) -> Self {
        Self::of(want.template, &want.key, Store::Registered(&want.backend))
    }

    /// For a row lock in the caller's transaction.
    pub(crate) fn begin_row(template: &'static str, key: &LockKey) -> Self {
        Self::of(template, key, Store::Transaction)
    }

    fn of(template: &'static str, key: &LockKey, store: Store<'a>) -> Self {
        let span = tracing::debug_span!(
            target: "dlock",
            "lock.acquire",
            template,
            key = %key,
            backend = store.name(),
            waited = Empty,
            token = Empty,
            outcome = Empty,
        );
        let began = is_observed(&span).then(Instant::now);
        Self { template, store, began, span }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn end(self, entered: Result<FencingToken, &LockError>) {
        let Some(waited) = self.began.map(|began| began.elapsed()) else { return };
        let outcome = match entered {
            Ok(_) => "acquired",
            Err(LockError::Busy { .. }) => "busy",
            Err(LockError::Lost { .. }) => "lost",
            Err(_) => "failed",
        };
        let token = entered.ok().map(FencingToken::get);
        if !self.span.is_disabled() {
            self.span.record("waited", tracing::field::debug(waited));
            self.span.record("token", token);
            self.span.record("outcome", outcome);
            self.span
                .in_scope(|| tracing::debug!(target: "dlock", ?waited, outcome, "lock acquire"));
        }
        meters::acquired(self.template, self.store, outcome, waited);
    }
}

/// Does anybody look at a call of this span?
fn is_observed(span: &Span) -> bool {
    cfg!(feature = "metrics") || !span.is_disabled()
}

/// The span of a body under its first lock: `lock.hold`.
pub(crate) fn holding(guards: &[LockGuard]) -> Span {
    let Some(hold) = guards.first().map(LockGuard::hold) else { return Span::none() };
    tracing::debug_span!(
        target: "dlock",
        "lock.hold",
        template = hold.template,
        key = %hold.claim.key,
        keys = guards.len(),
        backend = &*hold.backend.name,
        token = hold.token.get(),
        held = Empty,
        outcome = Empty,
    )
}

/// How a body under its locks ended.
pub(crate) fn held(span: &Span, guards: &[LockGuard], outcome: &'static str) {
    if let (false, Some(guard)) = (span.is_disabled(), guards.first()) {
        span.record("held", tracing::field::debug(guard.hold().since.elapsed()));
        span.record("outcome", outcome);
    }
}

/// A lease was given back, or has ended in the trying.
pub(crate) fn released(hold: &Hold) {
    if !cfg!(feature = "metrics") && !tracing::enabled!(target: "dlock", tracing::Level::DEBUG) {
        return;
    }
    let age = hold.since.elapsed();
    tracing::debug!(
        target: "dlock",
        template = hold.template,
        key = %hold.claim.key,
        backend = &*hold.backend.name,
        token = hold.token.get(),
        held = ?age,
        "lock released"
    );
    meters::released(hold, age);
}

/// A lease ended before its holder gave it back.
pub(crate) fn lost(hold: &Hold, loss: Loss) {
    tracing::warn!(
        target: "dlock",
        template = hold.template,
        key = %hold.claim.key,
        backend = &*hold.backend.name,
        token = hold.token.get(),
        held = ?hold.since.elapsed(),
        reason = %loss,
        "lock lost"
    );
    meters::lost(hold);
}

pub(crate) fn renewal_failed(hold: &Hold, error: &BackendError) {
    meters::renewal_failed(hold);
    let Some(more) = hold.backend.failures.renewals.note() else { return };
    tracing::warn!(
        target: "dlock",
        template = hold.template,
        key = %hold.claim.key,
        backend = &*hold.backend.name,
        remaining = ?hold.remaining(),
        more,
        %error,
        "lock renewal failed; it is retried until the lease ends (`more` failures since the last such line)"
    );
}

pub(crate) fn acquire_failed(want: &Want, error: &BackendError) {
    let Some(more) = want.backend.failures.acquires.note() else { return };
    tracing::warn!(
        target: "dlock",
        template = want.template,
        key = %want.key,
        backend = &*want.backend.name,
        more,
        %error,
        "lock acquire failed; it is retried until its wait is over (`more` failures since the last such line)"
    );
}

/// Once for a backend and template.
pub(crate) fn permits_disagree(want: &Want, other: NonZeroU32) {
    let own = match want.sharing {
        Sharing::Permits(own) => own.get(),
        Sharing::Exclusive | Sharing::Shared => 1,
    };
    tracing::warn!(
        target: "dlock",
        template = want.template,
        key = %want.key,
        backend = &*want.backend.name,
        own,
        other = other.get(),
        "two numbers of permits are in use for one key; each acquire is judged by its own"
    );
    meters::permits_disagree(want);
}

pub(crate) fn watch_failed(want: &Want, error: &BackendError) {
    let Some(more) = want.backend.failures.watches.note() else { return };
    tracing::debug!(
        target: "dlock",
        key = %want.key,
        backend = &*want.backend.name,
        more,
        %error,
        "no wake-up; the waiter polls"
    );
}

pub(crate) fn release_delayed(hold: &Hold, error: &BackendError) {
    let Some(more) = hold.backend.failures.releases.note() else { return };
    tracing::warn!(
        target: "dlock",
        template = hold.template,
        key = %hold.claim.key,
        backend = &*hold.backend.name,
        more,
        %error,
        "lock release failed; it is retried in the background until the lease ends (`more` failures since the last such line)"
    );
}

pub(crate) fn release_given_up(hold: &Hold) {
    let Some(more) = hold.backend.failures.given_up.note() else { return };
    tracing::warn!(
        target: "dlock",
        key = %hold.claim.key,
        backend = &*hold.backend.name,
        more,
        "lock release given up: its lease has ended"
    );
}

pub(crate) fn abandon_given_up(backend: &Registered, claim: &Claim) {
    let Some(more) = backend.failures.given_up.note() else { return };
    tracing::warn!(
        target: "dlock",
        key = %claim.key,
        backend = &*backend.name,
        kind = backend.store.kind(),
        more,
        "an acquire of unknown outcome could not be undone; if it was granted, its ttl ends it"
    );
}

#[cfg(feature = "metrics")]
mod meters {
    use std::sync::Arc;
    use std::time::Duration;

    use metrics::{Label, SharedString, counter, histogram};

    use super::Store;
    use crate::engine::{Hold, Want};

    fn name(store: Store<'_>) -> SharedString {
        match store {
            Store::Registered(backend) => Arc::clone(&backend.name).into(),
            Store::Transaction => "transaction".into(),
        }
    }

    fn labels(template: &'static str, store: Store<'_>) -> Vec<Label> {
        vec![Label::new("template", template), Label::new("backend", name(store))]
    }

    fn of(hold: &Hold) -> Vec<Label> {
        labels(hold.template, Store::Registered(&hold.backend))
    }

    pub(super) fn acquired(
        template: &'static str,
        store: Store<'_>,
        outcome: &'static str,
        waited: Duration,
    ) {
        histogram!("dlock_wait_seconds", labels(template, store)).record(waited);
        let labels = vec![
            Label::new("template", template),
            Label::new("backend", name(store)),
            Label::new("outcome", outcome),
        ];
        counter!("dlock_acquires_total", labels).increment(1);
    }

    pub(super) fn released(hold: &Hold, age: Duration) {
        histogram!("dlock_hold_seconds", of(hold)).record(age);
    }

    pub(super) fn lost(hold: &Hold) {
        counter!("dlock_lost_total", of(hold)).increment(1);
    }

    pub(super) fn permits_disagree(want: &Want) {
        let labels = labels(want.template, Store::Registered(&want.backend));
        counter!("dlock_permits_disagreements_total", labels).increment(1);
    }

    pub(super) fn renewal_failed(hold: &Hold) {
        counter!("dlock_renewal_failures_total", of(hold)).increment(1);
    }
}

/// Without the feature nothing is counted.
#[cfg(not(feature = "metrics"))]
mod meters {
    use std::time::Duration;

    use super::Store;
    use crate::engine::{Hold, Want};

    pub(super) fn acquired(_: &'static str, _: Store<'_>, _: &'static str, _: Duration) {}

    pub(super) fn released(_: &Hold, _: Duration) {}

    pub(super) fn lost(_: &Hold) {}

    pub(super) fn renewal_failed(_: &Hold) {}

    pub(super) fn permits_disagree(_: &Want) {}
}
