//! Cycles beside the limit: a group of bars for each row, the limit being 1.

use svg::Document;

use crate::contender::Role;
use crate::figure::short;
use crate::outcome::{Measured, Side};
use crate::report::picture::{
    BAR, FAINT, GRID, INK, LEFT, STEP, TARGET, WIDTH, colour, legend, line, page, rectangle,
    short_tick, text, text_to, ticks,
};

const TOP: f64 = 84.0;
/// Right of the bars: the numbers.
const RIGHT: f64 = 150.0;
const GAP: f64 = 30.0;
/// Longer bars are cut off.
const MOST: f64 = 4.0;

struct Group<'a> {
    row: &'a Measured,
    /// The limit's rate.
    unit: f64,
}

impl Group<'_> {
    fn height(&self) -> f64 {
        GAP + crate::contender::count(self.row.sides.len()) * STEP
    }

    fn share(&self, side: &Side) -> f64 {
        side.rate.map_or(0.0, |rate| rate.median) / self.unit
    }

    /// What dlock is to reach: the largest of its targets.
    fn target(&self) -> Option<f64> {
        let targets = self
            .row
            .sides
            .iter()
            .filter_map(|side| Some(self.row.verdict_on(side)?.target * self.share(side)));
        targets.max_by(f64::total_cmp)
    }
}

pub(super) fn draw(title: &str, rows: &[&Measured]) -> Option<Document> {
    let limit = |row: &Measured| {
        let limit = row.sides.iter().find(|side| side.role == Role::Limit)?;
        Some(limit.rate?.median)
    };
    let groups = rows.iter().filter_map(|row| Some(Group { row, unit: limit(row)? }));
    let groups: Vec<_> = groups.collect();
    if groups.is_empty() {
        return None;
    }
    let shares = groups.iter().flat_map(|group| {
        let sides = group.row.sides.iter().map(|side| group.share(side));
        sides.chain(group.target())
    });
    let most = shares.fold(1.0, f64::max).min(MOST) * 1.02;
    let x = |share: f64| LEFT + share.min(most) / most * (WIDTH - LEFT - RIGHT);
    let bottom = TOP + groups.iter().map(Group::height).sum::<f64>();

    let mut page = page(&format!("{title}: cycles, in multiples of the limit"), bottom + 44.0);
    page = legend(
        page,
        52.0,
        &[
            ("dlock", colour(Role::Dlock)),
            ("the limit: the least that any client could send", colour(Role::Limit)),
            ("other lock libraries", colour(Role::Peer)),
            ("dlock's target", TARGET),
        ],
    );
    for tick in ticks(most, 8.0) {
        page = page
            .add(line((x(tick), TOP), (x(tick), bottom + 6.0), GRID))
            .add(text(short_tick(tick), x(tick), bottom + 22.0).set("text-anchor", "middle"));
    }
    page = page.add(line((x(1.0), TOP), (x(1.0), bottom + 6.0), FAINT));
    let mut y = TOP;
    for group in &groups {
        page = draw_group(page, group, y, &x, most);
        y += group.height();
    }
    let axis = "cycles in a second, divided by those of the limit; the thin lines are quartiles";
    Some(page.add(text(axis, LEFT, bottom + 38.0).set("fill", FAINT)))
}

fn draw_group(
    mut page: Document,
    group: &Group<'_>,
    top: f64,
    x: &impl Fn(f64) -> f64,
    most: f64,
) -> Document {
    let title = text(group.row.title.clone(), 16.0, top + 20.0).set("font-weight", "bold");
    // A field of its own, so that no line of the grid runs through it.
    page = page.add(rectangle(0.0, top + 7.0, WIDTH, 18.0).set("fill", "#f6f8fa")).add(title);
    let mut y = top + GAP;
    for side in &group.row.sides {
        let share = group.share(side);
        let bar = rectangle(x(0.0), y, x(share) - x(0.0), BAR).set("fill", colour(side.role));
        let name = text_to(side.name.clone(), LEFT - 8.0, y + 11.0);
        let rate = side.rate.map(|rate| short(rate.median)).unwrap_or_default();
        let target = group.target().filter(|_| side.role == Role::Dlock);
        page = page
            .add(bar)
            .add(name)
            .add(text_to(format!("{share:.2}"), WIDTH - 100.0, y + 11.0))
            .add(text_to(format!("{rate}/s"), WIDTH - 16.0, y + 11.0));
        if share > most {
            page = page.add(text("▸", x(most) + 2.0, y + 11.0).set("fill", colour(side.role)));
        }
        if let Some(rate) = side.rate {
            let (low, high) = (rate.low / group.unit, rate.high / group.unit);
            let middle = y + BAR / 2.0;
            page =
                page.add(line((x(low), middle), (x(high), middle), INK).set("stroke-width", 1.5));
        }
        if let Some(target) = target {
            let mark = line((x(target), y - 3.0), (x(target), y + BAR + 3.0), TARGET);
            page = page.add(mark.set("stroke-width", 2.5));
        }
        y += STEP;
    }
    page
}
