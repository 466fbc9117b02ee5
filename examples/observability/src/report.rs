//! Contention as text.

use std::fmt::Write as _;
use std::time::Duration;

use dlock_runtime::{Blame, Contention, HolderSite, Waiting};

/// For whom calls waited, and who waits now.
pub(crate) fn table(contention: &Contention) -> String {
    let width = contention.blame.iter().map(|blame| named(&blame.holder).len()).max();
    let width = width.unwrap_or_default().max("WAITED FOR".len());
    // Writing into a `String` does not fail.
    let mut text = String::new();
    let _ = write!(text, "{:<width$}  {:>6}  {:>8}", "WAITED FOR", "WAITS", "IN ALL");
    let _ = write!(text, "  {:>7}  {:<12}  WAITER", "LONGEST", "LOCK");
    for Blame { template, waiter, holder, waits, waited, longest, .. } in &contention.blame {
        let [waited, longest] = [waited, longest].map(Duration::as_secs_f64);
        let _ = write!(text, "\n{:<width$}  {waits:>6}  {waited:>7.2}s", named(holder));
        let _ = write!(text, "  {longest:>6.2}s  {template:<12}  {waiter}");
    }
    for Waiting { waiter, count, oldest, oldest_key, .. } in &contention.waiting {
        let oldest = oldest.as_secs_f64();
        let _ = write!(text, "\nnow waiting: {count} × {waiter}, ");
        let _ = write!(text, "the first for {oldest:.2}s, for {oldest_key}");
    }
    text
}

/// The site, and whether it is one of another process.
fn named(holder: &HolderSite) -> String {
    match holder {
        HolderSite::Elsewhere(site) => format!("{site} elsewhere"),
        _ => holder.to_string(),
    }
}

/// What was charged to somebody, beside what the service has measured itself.
pub(crate) fn compare(contention: &Contention, measured: Duration) -> String {
    let [charged, measured] = [contention.waited(), measured].map(|time| time.as_secs_f64());
    format!("calls waited for {measured:.2}s by the service's own clock, {charged:.2}s are charged")
}
