//! The table in the documentation: a block between two markers that each run replaces.

use std::io;
use std::path::Path;

use super::Report;
use crate::contender::Role;
use crate::figure::{Spread, short};
use crate::outcome::{Measured, Side};
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
    std::fs::write(file, format!("{before}{BEGIN}\n\n{}\n{END}{after}", block(report)))
}

fn block(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "Measured on {}, with {}. {}\n",
        machine.describe(),
        machine.versions(),
        verdicts(report)
    );
    if report.is_quick {
        text.push_str("\nThis was a `--quick` run.\n");
    }
    for family in Family::ALL {
        let rows: Vec<_> = report.rows.iter().filter(|row| row.family == family).collect();
        if rows.is_empty() {
            continue;
        }
        text.push_str(&format!("\n### {}\n\n", family.title()));
        match family {
            Family::Alone | Family::Distant => text.push_str(&ratios(&rows)),
            Family::Contended => text.push_str(&contended(&rows)),
            Family::Idle | Family::Leftovers => text.push_str(&figures(&rows)),
        }
        text.push_str(&notes(&rows));
    }
    for line in &report.left_out {
        text.push_str(&format!("\nLeft out: {line}.\n"));
    }
    text
}

fn verdicts(report: &Report) -> String {
    let all: Vec<_> = report.rows.iter().flat_map(|row| &row.verdicts).collect();
    let met = all.iter().filter(|verdict| verdict.is_met).count();
    format!("{met} of {} targets are met.", all.len())
}

fn ratios(rows: &[&Measured]) -> String {
    let mut text = "| | cycles/s | dlock ÷ it | target | server CPU | client CPU | commands |\n|---|--:|--:|---|--:|--:|--:|\n".to_owned();
    for row in rows {
        text.push_str(&format!("| **{}** | | | | | | |\n", row.title));
        for side in &row.sides {
            let target = row.verdict_on(side).map(|one| (one.shown_target(), one.shown()));
            let target =
                target.map_or(String::new(), |(target, shown)| format!("{target}: {shown}"));
            let figure = |name| shown(side, name);
            text.push_str(&format!(
                "| {} | {} | {} | {target} | {} | {} | {} |\n",
                name(side),
                side.rate.map(whole).unwrap_or_default(),
                side.ratio.map(ratio).unwrap_or_default(),
                figure("server CPU"),
                figure("client CPU"),
                figure("commands"),
            ));
        }
    }
    text + &beside(rows)
}

fn contended(rows: &[&Measured]) -> String {
    let mut text = "| | cycles/s | hand-over p50 | p99 | wait p99 | luckiest | server CPU |\n|---|--:|--:|--:|--:|--:|--:|\n".to_owned();
    for row in rows {
        text.push_str(&format!("| **{}** | | | | | | |\n", row.title));
        for side in &row.sides {
            let cells = ["hand-over p50", "hand-over p99", "wait p99", "luckiest", "server CPU"];
            let rate = side.rate.map(whole).unwrap_or_default();
            let cells = cells.map(|name| shown(side, name)).join(" | ");
            text.push_str(&format!("| {} | {rate} | {cells} |\n", name(side)));
        }
    }
    text
}

fn figures(rows: &[&Measured]) -> String {
    let mut text = "| | | measured | target |\n|---|---|--:|---|\n".to_owned();
    for row in rows {
        let mut title = format!("**{}**", row.title);
        for side in &row.sides {
            for figure in &side.figures {
                let verdict = row.verdicts.iter().find(|one| one.of == figure.name);
                let verdict = verdict.filter(|_| side.role == Role::Dlock);
                let verdict = verdict.map(|one| format!("{}: {}", one.shown_target(), one.shown()));
                let value = figure.unit.show(figure.value);
                let of =
                    if row.sides.len() > 1 { format!("{}: ", side.name) } else { String::new() };
                text.push_str(&format!(
                    "| {title} | {of}{} | {value} | {} |\n",
                    figure.name,
                    verdict.unwrap_or_default()
                ));
                title.clear();
            }
        }
    }
    text
}

/// Rows of these families that have figures only.
fn beside(rows: &[&Measured]) -> String {
    let missing = rows.iter().flat_map(|row| {
        let verdicts = row.verdicts.iter().filter(|verdict| !verdict.is_ratio);
        verdicts.map(move |verdict| {
            let measured =
                verdict.measured.map_or("?".to_owned(), |value| verdict.unit.show(value));
            let (target, shown) = (verdict.shown_target(), verdict.shown());
            format!("\n{}: {} {measured}, target {target}: {shown}.\n", row.title, verdict.of)
        })
    });
    missing.collect()
}

fn notes(rows: &[&Measured]) -> String {
    let mut notes: Vec<String> = Vec::new();
    for row in rows {
        let remarks = row.sides.iter().filter(|side| !side.remark.is_empty());
        let remarks = remarks.map(|side| format!("{}: {}", side.name, side.remark));
        for note in remarks.chain(row.notes.iter().map(|note| format!("{}: {note}", row.title))) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    let lines: String = notes.iter().map(|note| format!("- {note}\n")).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

fn name(side: &Side) -> String {
    match side.role {
        Role::Dlock => "dlock".to_owned(),
        Role::Limit => format!("limit: {}", side.name),
        Role::Peer => side.name.clone(),
    }
}

fn shown(side: &Side, name: &str) -> String {
    let figure = side.figures.iter().find(|figure| figure.name == name);
    figure.map(|figure| figure.unit.show(figure.value)).unwrap_or_default()
}

fn whole(spread: Spread) -> String {
    short(spread.median)
}

fn ratio(spread: Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", spread.median, spread.low, spread.high)
}
