//! One key for all: how many cycles, how long a hand-over takes, who gets the lock most.

use svg::Document;

use crate::contender::Role;
use crate::figure::short;
use crate::outcome::{Measured, Side};
use crate::report::picture::{
    BAR, FAINT, GRID, LEFT, STEP, WIDTH, colour, legend, line, page, rectangle, short_tick, text,
    text_to, ticks,
};

const TOP: f64 = 100.0;
const GAP: f64 = 30.0;
/// Between two columns.
const SPACE: f64 = 70.0;
const COLUMNS: f64 = 3.0;

/// A column of bars.
struct Column {
    title: &'static str,
    value: fn(&Side) -> Option<f64>,
    show: fn(f64) -> String,
}

const ALL: [Column; 3] = [
    Column {
        title: "cycles/s of all together",
        value: |side| side.rate.map(|rate| rate.median),
        show: short,
    },
    Column {
        title: "hand-over p99, ms (p50 in white)",
        value: |side| side.figure("hand-over p99"),
        show: short,
    },
    Column {
        title: "luckiest, 1 = its fair share",
        value: |side| side.figure("luckiest"),
        show: |value| format!("{value:.2}"),
    },
];

pub(super) fn draw(rows: &[&Measured]) -> Option<Document> {
    let sides = rows.iter().map(|row| row.sides.len()).sum();
    if rows.is_empty() {
        return None;
    }
    let groups = crate::contender::count(rows.len()) * GAP;
    let bottom = TOP + groups + crate::contender::count(sides) * STEP;
    let mut page = page("One key for all", bottom + 34.0);
    let entries = [("dlock", colour(Role::Dlock)), ("other lock libraries", colour(Role::Peer))];
    page = legend(page, 52.0, &entries);
    let width = (WIDTH - LEFT) / COLUMNS;
    for (index, column) in (0_u32..).zip(&ALL) {
        let left = LEFT + f64::from(index) * width;
        page = draw_column(page, column, rows, left, width - SPACE, bottom);
    }
    let mut y = TOP;
    for row in rows {
        let title = text(row.title.clone(), 16.0, y + 20.0).set("font-weight", "bold");
        page = page.add(rectangle(0.0, y + 7.0, WIDTH, 18.0).set("fill", "#f6f8fa")).add(title);
        y += GAP;
        for side in &row.sides {
            page = page.add(text_to(side.name.clone(), LEFT - 8.0, y + 11.0));
            y += STEP;
        }
    }
    Some(page)
}

fn draw_column(
    mut page: Document,
    column: &Column,
    rows: &[&Measured],
    left: f64,
    width: f64,
    bottom: f64,
) -> Document {
    let values = rows.iter().flat_map(|row| &row.sides).filter_map(column.value);
    let most = values.fold(0.0, f64::max).max(1e-6);
    let x = |value: f64| left + value / most * width;
    page = page.add(text(column.title, left, TOP - 18.0).set("fill", FAINT));
    for tick in ticks(most, 3.0) {
        page = page
            .add(line((x(tick), TOP), (x(tick), bottom + 4.0), GRID))
            .add(text(short_tick(tick), x(tick), bottom + 20.0).set("text-anchor", "middle"));
    }
    let mut y = TOP;
    for row in rows {
        y += GAP;
        for side in &row.sides {
            if let Some(value) = (column.value)(side) {
                let bar = rectangle(left, y, x(value) - left, BAR).set("fill", colour(side.role));
                page = page.add(bar).add(text((column.show)(value), x(value) + 5.0, y + 11.0));
            }
            if let Some(median) = side.figure("hand-over p50").filter(|_| is_hand_over(column)) {
                let mark = line((x(median), y), (x(median), y + BAR), "white");
                page = page.add(mark.set("stroke-width", 2));
            }
            y += STEP;
        }
    }
    page
}

fn is_hand_over(column: &Column) -> bool {
    column.title.starts_with("hand-over")
}
