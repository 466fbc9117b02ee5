//! The charts, one for each part of the report that has bars to show.

mod contended;
mod idle;
mod ratios;

use svg::Document;

use super::Report;
use crate::outcome::Measured;
use crate::row::Family;

/// The charts with their file names. A chart without rows is left out.
pub(super) fn all(report: &Report) -> Vec<(&'static str, Document)> {
    let of = |family| -> Vec<&Measured> {
        report.rows.iter().filter(|row| row.family == family).collect()
    };
    let charts = [
        ("alone.svg", ratios::draw(Family::Alone.title(), &of(Family::Alone))),
        ("distant.svg", ratios::draw(Family::Distant.title(), &of(Family::Distant))),
        ("contended.svg", contended::draw(&of(Family::Contended))),
        ("held.svg", idle::draw(&of(Family::Idle))),
    ];
    charts.into_iter().filter_map(|(name, chart)| Some((name, chart?))).collect()
}
