//! The table in the documentation: a block between two markers that each run replaces.

use std::io;
use std::path::Path;

use super::Report;
use crate::contender::Role;
use crate::figure::{Figure, Spread, short};
use crate::outcome::{Measured, Side, Verdict};
use crate::row::Family;

const BEGIN: &str = "<!-- generated: cargo bench -p dlock-benches --bench peers -- --docs -->";
const END: &str = "<!-- end of what is generated -->";

pub(super) fn write(report: &Report, file: &Path) -> io::Result<()> {
    let text = std::fs::read_to_string(file)?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let missing = || io::Error::other(format!("{}: no markers", file.display()));
    let (before, after) = parts.ok_or_else(missing)?;
    let block = block(report).join("\n");
    std::fs::write(file, format!("{before}{BEGIN}\n\n{block}\n\n{END}{after}"))
}

fn block(report: &Report) -> Vec<String> {
    let (machine, versions) = (report.machine.describe(), report.machine.versions());
    let mut lines = vec![format!("Measured on {machine}, with {versions}. {}", verdicts(report))];
    if report.is_quick {
        lines.extend([String::new(), "This was a `--quick` run.".to_owned()]);
    }
    for family in Family::ALL {
        let rows: Vec<_> = report.rows.iter().filter(|row| row.family == family).collect();
        if rows.is_empty() {
            continue;
        }
        lines.extend([String::new(), format!("### {}", family.title()), String::new()]);
        lines.extend(match family {
            Family::Alone | Family::Distant => ratios(&rows),
            Family::Contended => contended(&rows),
            Family::Idle | Family::Leftovers => figures(&rows),
        });
        lines.extend(notes(&rows));
    }
    for reason in &report.left_out {
        lines.extend([String::new(), format!("Left out: {reason}.")]);
    }
    lines
}

fn verdicts(report: &Report) -> String {
    let all: Vec<_> = report.rows.iter().flat_map(|row| &row.verdicts).collect();
    let met = all.iter().filter(|verdict| verdict.is_met).count();
    format!("{met} of {} targets are met.", all.len())
}

/// A table whose rows are groups: a title, and a line for each side.
fn grouped(
    head: &[&str],
    rows: &[&Measured],
    cells: impl Fn(&Measured, &Side) -> Vec<String>,
) -> Vec<String> {
    let right = "--:|".repeat(head.len());
    let mut lines = vec![format!("| | {} |", head.join(" | ")), format!("|---|{right}")];
    for row in rows {
        lines.push(format!("| **{}** |{}", row.title, " |".repeat(head.len())));
        for side in &row.sides {
            lines.push(format!("| {} | {} |", name(side), cells(row, side).join(" | ")));
        }
    }
    lines
}

fn ratios(rows: &[&Measured]) -> Vec<String> {
    let own = ["server CPU", "client CPU", "commands", "scripts"];
    let head = [&["cycles/s", "dlock ÷ it", "target"], &own[..]].concat();
    let mut lines = grouped(&head, rows, |row, side| {
        let mut cells = vec![
            rate(side),
            side.ratio.map(ratio).unwrap_or_default(),
            row.verdict_on(side).map(judge).unwrap_or_default(),
        ];
        cells.extend(own.map(|name| shown(side, name)));
        cells
    });
    lines.extend(other_verdicts(rows));
    lines
}

/// What became of the targets that are not ratios.
fn other_verdicts(rows: &[&Measured]) -> Vec<String> {
    let mut lines = vec![];
    for row in rows {
        for verdict in row.verdicts.iter().filter(|verdict| !verdict.is_ratio) {
            let measured = verdict.measured.map(|value| verdict.unit.show(value));
            let (of, measured) = (verdict.of, measured.unwrap_or_default());
            let line = format!("{}: {of} {measured}, target {}.", row.title, judge(verdict));
            lines.extend([String::new(), line]);
        }
    }
    lines
}

fn contended(rows: &[&Measured]) -> Vec<String> {
    let own = ["hand-over p50", "hand-over p99", "wait p99", "luckiest", "server CPU", "commands"];
    let head = [&["cycles/s", "dlock ÷ it", "target"], &own[..]].concat();
    let mut lines = grouped(&head, rows, |row, side| {
        let mut cells = vec![
            rate(side),
            side.ratio.map(ratio).unwrap_or_default(),
            row.verdict_on(side).map(judge).unwrap_or_default(),
        ];
        cells.extend(own.map(|name| shown(side, name)));
        cells
    });
    lines.extend(other_verdicts(rows));
    lines
}

fn figures(rows: &[&Measured]) -> Vec<String> {
    let mut lines = vec!["| | | measured | target |".to_owned(), "|---|---|--:|--:|".to_owned()];
    for row in rows {
        let mut title = format!("**{}**", row.title);
        for Figure { name, value, unit } in row.sides.iter().flat_map(|side| &side.figures) {
            let verdict = row.verdicts.iter().find(|verdict| verdict.of == *name);
            let verdict = verdict.map(judge).unwrap_or_default();
            lines.push(format!("| {title} | {name} | {} | {verdict} |", unit.show(*value)));
            title.clear();
        }
    }
    lines
}

/// What a reader must know beside the numbers of a table.
fn notes(rows: &[&Measured]) -> Vec<String> {
    let mut notes = vec![];
    for row in rows {
        let remarks = row.sides.iter().filter(|side| !side.remark.is_empty());
        let remarks = remarks.map(|side| format!("- {}: {}.", side.name, side.remark));
        let own = row.notes.iter().map(|note| format!("- {}: {note}.", row.title));
        for note in remarks.chain(own) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    if !notes.is_empty() {
        notes.insert(0, String::new());
    }
    notes
}

fn judge(verdict: &Verdict) -> String {
    format!("{}: {}", verdict.shown_target(), verdict.shown())
}

fn name(side: &Side) -> String {
    match side.role {
        Role::Limit => format!("limit: {}", side.name),
        Role::Dlock | Role::Peer => side.name.clone(),
    }
}

fn shown(side: &Side, name: &str) -> String {
    let figure = side.figures.iter().find(|figure| figure.name == name);
    figure.map(|figure| figure.unit.show(figure.value)).unwrap_or_default()
}

fn rate(side: &Side) -> String {
    side.rate.map(|rate| short(rate.median)).unwrap_or_default()
}

fn ratio(spread: Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", spread.median, spread.low, spread.high)
}
