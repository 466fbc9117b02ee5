//! A table for people, and JSON for scripts.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::figures::Figures;
use super::limit::Unmeasured;
use crate::top::table::{Column, Row, Table, Tone, Weight};

/// What was measured of dlock, beside what the store can do.
pub struct Line {
    /// For scripts.
    pub name: &'static str,
    /// For people.
    pub title: String,
    pub tasks: usize,
    pub figures: Figures,
    /// `None` if it was not measured.
    pub limit: Option<Figures>,
}

/// All that was measured.
pub struct Report {
    pub store: String,
    pub length: Duration,
    pub lines: Vec<Line>,
    /// What it is, or why it could not be measured.
    pub limit: Result<&'static str, Unmeasured>,
}

const fn number(name: &'static str) -> Column {
    Column { name, is_number: true, rank: 0, least: None }
}

const COLUMNS: [Column; 8] = [
    Column { name: "MEASURED", is_number: false, rank: 0, least: None },
    number("DLOCK/S"),
    number("P50"),
    number("P99"),
    number("LIMIT/S"),
    number("P50"),
    number("P99"),
    number("RATIO"),
];

impl Line {
    /// How near dlock is to what the store can do.
    fn ratio(&self) -> Option<f64> {
        let limit = self.limit.filter(|limit| limit.per_second > 0.0)?;
        Some(self.figures.per_second / limit.per_second)
    }

    fn row(&self) -> Row {
        let mut cells = vec![self.title.clone()];
        cells.extend(texts(Some(self.figures)));
        cells.extend(texts(self.limit));
        cells.push(self.ratio().map_or_else(none, |ratio| format!("{ratio:.2}")));
        let cells = cells.into_iter().map(|text| (text, Weight::Number(0))).collect();
        Row { id: self.title.clone(), cells, tone: Tone::Plain, searched: String::new() }
    }
}

impl Report {
    pub fn text(&self) -> String {
        let rows = self.lines.iter().map(Line::row).collect();
        let table = Table { columns: &COLUMNS, rows };
        let widths = table.widths(usize::MAX);
        let mut text = format!("{}, from this machine, {:?} for each\n\n", self.store, self.length);
        let rows = table.rows.iter().map(|row| table.row(row, &widths));
        for line in std::iter::once(table.head(&widths, None)).chain(rows) {
            // Writing into a `String` does not fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let _ = match &self.limit {
            Ok(what) => writeln!(text, "\nLIMIT: {what}.\n{HAND_OVERS}"),
            Err(Unmeasured(why)) => {
                writeln!(text, "\nThe limit of this store was not measured: {why}.")
            }
        };
        text
    }

    pub fn json(&self) -> Value {
        let of_line = |line: &Line| {
            let mut value = line.figures.to_json();
            value["name"] = line.name.into();
            value["tasks"] = line.tasks.into();
            value["limit"] = line.limit.map(Figures::to_json).into();
            value["ratio"] = line.ratio().into();
            value
        };
        let (limit, unmeasured) = match &self.limit {
            Ok(what) => (Some(*what), None),
            Err(Unmeasured(why)) => (None, Some(why)),
        };
        json!({
            "store": self.store,
            "seconds": self.length.as_secs_f64(),
            "limit": limit,
            "limit_unmeasured": unmeasured,
            "measurements": self.lines.iter().map(of_line).collect::<Vec<_>>(),
        })
    }
}

const HAND_OVERS: &str =
    "Hand-overs are beside the limit of one task: each begins when the one before has ended.";

fn texts(figures: Option<Figures>) -> [String; 3] {
    let Some(Figures { per_second, p50, p99 }) = figures else { return [none(), none(), none()] };
    [format!("{per_second:.0}"), format!("{p50:.1?}"), format!("{p99:.1?}")]
}

fn none() -> String {
    "-".to_owned()
}
