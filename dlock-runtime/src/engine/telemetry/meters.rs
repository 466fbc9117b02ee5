//! Metrics, through the facade `metrics`.
//!
//! They are labelled with the key *template*, never with the key, because every value would create its own time series.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Label, SharedString, counter, gauge, histogram};

use super::{Labels, Operation, Store};
use crate::error::LostReason;

fn backend(store: Store<'_>) -> Label {
    let name: SharedString = match store {
        Store::Backend(name) => Arc::clone(name).into(),
        Store::Transaction => "transaction".into(),
    };
    Label::new("backend", name)
}

fn of(labels: Labels<'_>) -> Vec<Label> {
    with(labels, None)
}

/// In one allocation, because a call has several metrics.
fn with(labels: Labels<'_>, more: Option<(&'static str, &'static str)>) -> Vec<Label> {
    let mut all = Vec::with_capacity(2 + usize::from(more.is_some()));
    all.extend([Label::new("template", labels.template), backend(labels.store)]);
    all.extend(more.map(|(name, value)| Label::new(name, value)));
    all
}

pub(crate) fn acquired(labels: Labels<'_>, outcome: &'static str, waited: Duration) {
    histogram!("dlock_wait_seconds", of(labels)).record(waited);
    counter!("dlock_acquires_total", with(labels, Some(("outcome", outcome)))).increment(1);
}

pub(crate) fn hold_began(labels: Labels<'_>, is_passed: bool) {
    gauge!("dlock_held", of(labels)).increment(1.0);
    if is_passed {
        counter!("dlock_passes_total", of(labels)).increment(1);
    }
}

pub(crate) fn hold_closed(labels: Labels<'_>) {
    gauge!("dlock_held", of(labels)).decrement(1.0);
}

pub(crate) fn released(labels: Labels<'_>, age: Duration) {
    histogram!("dlock_hold_seconds", of(labels)).record(age);
}

pub(crate) fn lost(labels: Labels<'_>, reason: LostReason) {
    let reason = match reason {
        LostReason::Expired => "expired",
        LostReason::NotHeld => "not_held",
        LostReason::Unattended => "unattended",
        LostReason::OuterClosed => "outer_closed",
    };
    counter!("dlock_lost_total", with(labels, Some(("reason", reason)))).increment(1);
}

pub(crate) fn held_too_long(labels: Labels<'_>) {
    counter!("dlock_held_too_long_total", of(labels)).increment(1);
}

pub(crate) fn permits_disagree(labels: Labels<'_>) {
    counter!("dlock_permits_disagreements_total", of(labels)).increment(1);
}

pub(crate) fn renewed(labels: Labels<'_>) {
    counter!("dlock_renewals_total", of(labels)).increment(1);
}

pub(crate) fn renewal_failed(labels: Labels<'_>) {
    counter!("dlock_renewal_failures_total", of(labels)).increment(1);
}

pub(crate) fn store_failed(store: Store<'_>, operation: Operation) {
    let labels = vec![backend(store), Label::new("operation", operation.name())];
    counter!("dlock_store_failures_total", labels).increment(1);
}

pub(crate) fn wait_began(labels: Labels<'_>) {
    gauge!("dlock_waiting", of(labels)).increment(1.0);
}

pub(crate) fn wait_ended(labels: Labels<'_>) {
    gauge!("dlock_waiting", of(labels)).decrement(1.0);
}

pub(crate) fn oldest_wait(template: &'static str, name: &Arc<str>, age: Duration) {
    let labels = vec![Label::new("template", template), backend(Store::Backend(name))];
    gauge!("dlock_oldest_wait_seconds", labels).set(age);
}

pub(crate) fn blamed(template: &'static str, name: &Arc<str>, holder: &str, waited: Duration) {
    let backend = backend(Store::Backend(name));
    let holder = Label::new("holder", holder.to_owned());
    let labels = vec![Label::new("template", template), backend, holder];
    histogram!("dlock_blame_seconds", labels).record(waited);
}

/// Makes the counters of what seldom happens begin at zero, so that the first time shows as an increase.
pub(crate) fn begin(template: &'static str, name: &Arc<str>) {
    let of = || vec![Label::new("template", template), backend(Store::Backend(name))];
    for reason in ["expired", "not_held", "unattended"] {
        let mut labels = of();
        labels.push(Label::new("reason", reason));
        counter!("dlock_lost_total", labels).increment(0);
    }
    counter!("dlock_held_too_long_total", of()).increment(0);
    counter!("dlock_renewal_failures_total", of()).increment(0);
    for operation in Operation::ALL {
        let operation = Label::new("operation", operation.name());
        let labels = vec![backend(Store::Backend(name)), operation];
        counter!("dlock_store_failures_total", labels).increment(0);
    }
}
