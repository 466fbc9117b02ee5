//! The metrics that this crate records through the [`metrics`](https://docs.rs/metrics) facade, behind the feature
//! `metrics`.
//!
//! They are recorded by whatever recorder the process installs, such as `metrics-exporter-prometheus`. Install it before
//! the registry is built, so that the descriptions reach it, or call [`describe`] again. The
//! [guide](crate::guide::telemetry) says what each metric shows and which ones to alert on.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What a metric measures with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is now.
    Gauge,
    /// A distribution, in seconds.
    Histogram,
}

/// A metric: its name, its labels and what it means.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// The name, in Prometheus's form.
    pub name: &'static str,
    /// What it measures with.
    pub kind: Kind,
    /// The names of its labels. `template` is the key template, never the key; `backend` is the registered name.
    pub labels: &'static [&'static str],
    /// What it means.
    pub description: &'static str,
}

const LOCK: &[&str] = &["template", "backend"];

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    description: &'static str,
) -> Metric {
    Metric { name, kind, labels, description }
}

/// All metrics.
pub const ALL: &[Metric] = &[
    metric(
        "dlock_acquires_total",
        Kind::Counter,
        &["template", "backend", "outcome"],
        "calls, by `outcome`: `acquired`, `skipped` (busy, with `on_busy = \"skip\"`), `busy`, `failed`, or `lost` before the body began",
    ),
    metric(
        "dlock_wait_seconds",
        Kind::Histogram,
        LOCK,
        "how long a call took to get its lock or to fail",
    ),
    metric("dlock_hold_seconds", Kind::Histogram, LOCK, "how long a lock was held"),
    metric("dlock_held", Kind::Gauge, LOCK, "holds of this process that have not been released"),
    metric(
        "dlock_waiting",
        Kind::Gauge,
        LOCK,
        "calls of this process that wait for another holder now",
    ),
    metric(
        "dlock_oldest_wait_seconds",
        Kind::Gauge,
        LOCK,
        "for how long the oldest of them has waited; updated every second",
    ),
    metric(
        "dlock_blame_seconds",
        Kind::Histogram,
        &["template", "backend", "holder"],
        "the time that calls waited, charged to the site `holder` that held the lock meanwhile: use its sum",
    ),
    metric(
        "dlock_passes_total",
        Kind::Counter,
        LOCK,
        "holds whose lease was passed on inside this process, without a request to the store",
    ),
    metric("dlock_renewals_total", Kind::Counter, LOCK, "renewals of a lease"),
    metric(
        "dlock_renewal_failures_total",
        Kind::Counter,
        LOCK,
        "renewals that failed and are being retried",
    ),
    metric(
        "dlock_lost_total",
        Kind::Counter,
        &["template", "backend", "reason"],
        "leases that ended before their holder released them, by `reason`: `expired`, `not_held` (revoked, force-released or forgotten by the store), `unattended` (its runtime ended)",
    ),
    metric("dlock_held_too_long_total", Kind::Counter, LOCK, "holds that `max_hold` ended"),
    metric(
        "dlock_store_failures_total",
        Kind::Counter,
        &["backend", "operation"],
        "requests that the store failed or did not answer, by `operation`: `acquire`, `renew`, `release`, `watch`",
    ),
    metric(
        "dlock_permits_disagreements_total",
        Kind::Counter,
        LOCK,
        "templates for which processes count different numbers of permits",
    ),
];

/// Describes all metrics to the recorder that is installed now. A registry does so when it is built.
pub fn describe() {
    for Metric { name, kind, description, .. } in ALL {
        match kind {
            Kind::Counter => describe_counter!(*name, Unit::Count, *description),
            Kind::Gauge if name.ends_with("_seconds") => {
                describe_gauge!(*name, Unit::Seconds, *description);
            }
            Kind::Gauge => describe_gauge!(*name, Unit::Count, *description),
            Kind::Histogram => describe_histogram!(*name, Unit::Seconds, *description),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each metric as the guide shows it.
    fn table() -> String {
        let row = |metric: &Metric| {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let labels = metric.labels.iter().map(|label| format!("`{label}`"));
            let labels = labels.collect::<Vec<_>>().join(", ");
            format!("| `{}` | {kind} | {labels} | {} |\n", metric.name, metric.description)
        };
        ALL.iter().map(row).collect()
    }

    #[test]
    fn the_guide_lists_every_metric() {
        let guide = include_str!("guide/telemetry.md");
        let table = table();
        assert!(guide.contains(&table), "the guide page `telemetry` lacks this table:\n{table}");
    }
}
