//! Held and waiting: the CPU of the client and of the server while nothing changes.

use svg::Document;

use crate::outcome::{Measured, Verdict};
use crate::report::picture::{
    BAR, FAINT, GRID, LEFT, STEP, TARGET, WIDTH, legend, line, page, rectangle, short_tick, text,
    text_to, ticks,
};

const TOP: f64 = 84.0;
const GAP: f64 = 30.0;
const RIGHT: f64 = 150.0;
const CPU: &str = "CPU, of a core";
const BARS: &str = "#0969da";

pub(super) fn draw(rows: &[&Measured]) -> Option<Document> {
    let groups: Vec<_> = rows.iter().map(|row| (row, bars(row))).collect();
    let most = groups.iter().flat_map(|(_, bars)| bars).map(|bar| bar.value.max(bar.target()));
    let most = most.fold(0.0, f64::max) * 1.02;
    if most <= 0.0 {
        return None;
    }
    let x = |value: f64| LEFT + value / most * (WIDTH - LEFT - RIGHT);
    let height = |bars: &Vec<Bar<'_>>| GAP + crate::contender::count(bars.len()) * STEP;
    let bottom = TOP + groups.iter().map(|(_, bars)| height(bars)).sum::<f64>();
    let mut page = page("Held and waiting: CPU while nothing changes", bottom + 44.0);
    page = legend(page, 52.0, &[("measured", BARS), ("target: at most", TARGET)]);
    for tick in ticks(most, 10.0) {
        page = page.add(line((x(tick), TOP), (x(tick), bottom + 6.0), GRID)).add(
            text(format!("{} %", short_tick(tick)), x(tick), bottom + 22.0)
                .set("text-anchor", "middle"),
        );
    }
    let mut y = TOP;
    for (row, bars) in &groups {
        let title = text(row.title.clone(), 16.0, y + 20.0).set("font-weight", "bold");
        page = page.add(rectangle(0.0, y + 7.0, WIDTH, 18.0).set("fill", "#f6f8fa")).add(title);
        for (index, bar) in (0_u32..).zip(bars) {
            let top = y + GAP + f64::from(index) * STEP;
            let end = x(bar.value).max(x(bar.target()));
            page = page
                .add(text_to(bar.name, LEFT - 8.0, top + 11.0))
                .add(rectangle(x(0.0), top, x(bar.value) - x(0.0), BAR).set("fill", BARS))
                .add(text(format!("{:.1} %", bar.value), end + 7.0, top + 11.0));
            if let Some(verdict) = bar.verdict {
                let at = x(verdict.target);
                let mark = line((at, top - 3.0), (at, top + BAR + 3.0), TARGET);
                page = page.add(mark.set("stroke-width", 2.5));
            }
        }
        y += height(bars);
    }
    Some(page.add(text("percent of one core", LEFT, bottom + 38.0).set("fill", FAINT)))
}

struct Bar<'a> {
    name: &'a str,
    value: f64,
    verdict: Option<&'a Verdict>,
}

impl Bar<'_> {
    fn target(&self) -> f64 {
        self.verdict.map_or(0.0, |verdict| verdict.target)
    }
}

fn bars(row: &Measured) -> Vec<Bar<'_>> {
    let figures = row.sides.iter().flat_map(|side| &side.figures);
    let figures = figures.filter(|figure| figure.name.ends_with(CPU));
    let bar = figures.map(|figure| Bar {
        name: figure.name.trim_end_matches(", of a core"),
        value: figure.value,
        verdict: row.verdicts.iter().find(|verdict| verdict.of == figure.name),
    });
    bar.collect()
}
