//! Telemetry: `tracing` spans and events under the target `dlock`, and metrics behind the feature
//! `metrics`.

mod acquire_span;
mod hold_span;
#[cfg_attr(not(feature = "metrics"), path = "telemetry/no_meters.rs")]
pub(crate) mod meters;
mod outages;

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{BackendError, LostReason};
use crate::key::LockKey;
use crate::token::FencingToken;

pub(crate) use self::acquire_span::AcquireSpan;
pub(crate) use self::hold_span::HoldSpan;
pub(crate) use self::outages::{Operation, Outages};

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

/// Reports that a hold began.
pub(crate) fn hold_began(labels: Labels<'_>, is_passed: bool) {
    unharmed(|| meters::hold_began(labels, is_passed));
}

/// Calls the application's recorder at a point where its panic would cost a lock.
pub(crate) fn unharmed(record: impl FnOnce()) {
    // The panic has been reported by the hook.
    let _ = catch_unwind(AssertUnwindSafe(record));
}

/// Reports that a hold is no longer open: its lease was released or passed on, or its end is not awaited any more.
pub(crate) fn hold_closed(labels: Labels<'_>) {
    unharmed(|| meters::hold_closed(labels));
}

/// Reports that a lease was released, or has ended while its release was retried. `was_lost`: the loss has been
/// reported.
pub(crate) fn released(
    labels: Labels<'_>,
    token: FencingToken,
    was_lost: bool,
    held: impl FnOnce() -> Duration,
) {
    #[cfg(feature = "sim")]
    crate::sim::note_left(labels.key, token, None);
    if !cfg!(feature = "metrics") && !tracing::enabled!(target: "dlock", tracing::Level::DEBUG) {
        return;
    }
    let age = held();
    meters::released(labels, age);
    if was_lost {
        return;
    }
    tracing::debug!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        token = token.get(),
        held = ?age,
        "lock released"
    );
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
    meters::lost(labels, loss);
}

/// Reports that `max_hold` ended a hold.
pub(crate) fn held_too_long(labels: Labels<'_>, token: FencingToken, max_hold: Duration) {
    tracing::warn!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        token = token.get(),
        ?max_hold,
        "lock held longer than its max_hold"
    );
    meters::held_too_long(labels);
}

/// Reports that a shutdown ended a hold.
pub(crate) fn shut_down(labels: Labels<'_>, token: FencingToken) {
    tracing::warn!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        token = token.get(),
        "body stopped: the process is shutting down"
    );
}

pub(crate) fn renewed(labels: Labels<'_>) {
    meters::renewed(labels);
}

pub(crate) fn renewal_failed(
    labels: Labels<'_>,
    outages: &Outages,
    remaining: Duration,
    error: &BackendError,
) {
    meters::renewal_failed(labels);
    tracing::debug!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        ?remaining,
        %error,
        "lock renewal failed; retrying until the lease ends"
    );
    outages.failed(labels, Operation::Renew, error);
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

pub(crate) fn release_given_up(labels: Labels<'_>) {
    tracing::debug!(
        target: "dlock",
        template = labels.template,
        key = %labels.key,
        backend = labels.store.name(),
        "gave up releasing the lock; its lease has ended"
    );
}

pub(crate) fn abandon_given_up(labels: Labels<'_>, kind: &str) {
    tracing::debug!(
        target: "dlock",
        key = %labels.key,
        backend = labels.store.name(),
        kind,
        "an acquire with an unknown outcome could not be undone; if it was granted, it expires after its ttl"
    );
}
