//! The table on the terminal.

use crate::figure::short;
use crate::outcome::{Measured, Side, Verdict};

/// A row as text, a line for each contender.
#[must_use]
pub fn show(row: &Measured) -> String {
    let width = row.sides.iter().map(|side| side.name.chars().count()).max().unwrap_or(0);
    let side = |side: &Side| {
        let parts = [rate(side), ratio(row, side), figures(row, side)];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("  {:width$}  {}", side.name, parts.join("  "))
    };
    let mut lines = vec![String::new(), format!("{}  ({})", row.title, row.id)];
    lines.extend(row.sides.iter().map(side));
    lines.extend(row.notes.iter().map(|note| format!("  {note}")));
    lines.join("\n").replace("**missed**", "MISSED")
}

fn rate(side: &Side) -> String {
    let Some(rate) = side.rate else { return String::new() };
    let spread = format!("({}-{})", short(rate.low), short(rate.high));
    format!("{:>9} cycles/s {spread:<19}", short(rate.median))
}

fn ratio(row: &Measured, side: &Side) -> String {
    let Some(ratio) = side.ratio else {
        return if side.rate.is_some() { " ".repeat(53) } else { String::new() };
    };
    let verdict = row.verdict_on(side).map(judge).unwrap_or_default();
    let shown = format!("dlock / it {:.2} ({:.2}-{:.2})", ratio.median, ratio.low, ratio.high);
    format!("{shown:<28}  {verdict:<23}")
}

fn judge(verdict: &Verdict) -> String {
    format!("target {}: {}", verdict.shown_target(), verdict.shown())
}

fn figures(row: &Measured, side: &Side) -> String {
    let shown = side.figures.iter().map(|figure| {
        let value = figure.unit.show(figure.value);
        let verdict = row.verdicts.iter().find(|one| !one.is_ratio && one.of == figure.name);
        // The targets are dlock's.
        let verdict = verdict.filter(|_| side.role == crate::contender::Role::Dlock);
        let verdict = verdict.map(|verdict| format!(" ({})", judge(verdict)));
        format!("{} {value}{}", figure.name, verdict.unwrap_or_default())
    });
    shown.collect::<Vec<_>>().join(", ")
}
