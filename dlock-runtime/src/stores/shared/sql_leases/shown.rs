//! Compares the statements with the guide.

use std::time::Duration;

use crate::backend::Claim;

/// What is left of a `min_hold`.
pub(crate) const KEEP: Duration = Duration::from_secs(7);

/// Checks that the guide shows the statements, with names for values. `key` and `interval` are the database's literals.
pub(crate) fn assert_shown(
    guide: &str,
    statements: &[String],
    claim: &Claim,
    key: &str,
    interval: fn(u128) -> String,
) {
    let guide = without_blanks(guide);
    let interval = |duration: Duration| interval(duration.as_micros());
    for statement in statements {
        let shown = statement.replace(key, "$key").replace(&claim.owner.to_string(), "$owner");
        let shown = shown.replace(&claim.client_info.to_text(), "$claimant");
        let shown = shown.replace(&interval(claim.ttl), "$ttl").replace(&interval(KEEP), "$rest");
        let shown = shown.replace(&interval(Duration::ZERO), "$rest");
        assert!(guide.contains(&without_blanks(&shown)), "not in the guide:\n{shown}");
    }
}

fn without_blanks(text: &str) -> String {
    text.split_whitespace().collect()
}
