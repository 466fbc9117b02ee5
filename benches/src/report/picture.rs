//! Parts of pictures.

use svg::Document;
use svg::node::element::{Line, Rectangle, Text, Title};

use crate::contender::Role;

pub(super) const WIDTH: f64 = 900.0;
/// What names are written in, left of the bars.
pub(super) const LEFT: f64 = 210.0;
pub(super) const BAR: f64 = 13.0;
pub(super) const STEP: f64 = 18.0;

pub(super) const INK: &str = "#1f2328";
pub(super) const FAINT: &str = "#57606a";
pub(super) const GRID: &str = "#d8dee4";
pub(super) const TARGET: &str = "#cf222e";

/// An empty page with a title.
pub(super) fn page(title: &str, height: f64) -> Document {
    Document::new()
        .set("width", WIDTH)
        .set("height", height)
        .set("viewBox", (0, 0, WIDTH, height))
        .set("font-family", "Helvetica, Arial, sans-serif")
        .set("font-size", 12)
        .set("fill", INK)
        .add(Title::new(title))
        .add(rectangle(0.0, 0.0, WIDTH, height).set("fill", "white"))
        .add(text(title, 16.0, 26.0).set("font-size", 17).set("font-weight", "bold"))
}

pub(super) fn colour(role: Role) -> &'static str {
    match role {
        Role::Dlock => "#0969da",
        Role::Limit => "#8c959f",
        Role::Peer => "#e0a458",
    }
}

pub(super) fn text(content: impl Into<String>, x: f64, y: f64) -> Text {
    Text::new(content).set("x", x).set("y", y)
}

/// Text that ends here.
pub(super) fn text_to(content: impl Into<String>, x: f64, y: f64) -> Text {
    text(content, x, y).set("text-anchor", "end")
}

pub(super) fn line(from: (f64, f64), to: (f64, f64), colour: &str) -> Line {
    let line = Line::new().set("x1", from.0).set("y1", from.1).set("x2", to.0).set("y2", to.1);
    line.set("stroke", colour)
}

pub(super) fn rectangle(x: f64, y: f64, width: f64, height: f64) -> Rectangle {
    Rectangle::new().set("x", x).set("y", y).set("width", width).set("height", height)
}

/// What the colours and marks mean, in one line.
pub(super) fn legend(mut page: Document, y: f64, entries: &[(&str, &str)]) -> Document {
    let mut x = 16.0;
    for (name, colour) in entries {
        let sample = rectangle(x, y - 10.0, 12.0, 12.0).set("fill", *colour);
        page = page.add(sample).add(text(*name, x + 17.0, y));
        x += 34.0 + width_of(name);
    }
    page
}

/// About how wide a text is.
pub(super) fn width_of(text: &str) -> f64 {
    crate::contender::count(text.chars().count()) * 6.3
}

/// 1, 2 or 5 times a power of ten, for at most this many steps.
pub(super) fn tick(most: f64, steps: f64) -> f64 {
    let power = 10_f64.powf((most / steps).log10().floor());
    let sizes = [1.0, 2.0, 5.0, 10.0].map(|size| size * power);
    sizes.into_iter().find(|size| most / size <= steps).unwrap_or(most)
}

/// The ticks from zero to this.
pub(super) fn ticks(most: f64, steps: f64) -> impl Iterator<Item = f64> {
    let step = tick(most, steps);
    (0_u32..).map(move |index| f64::from(index) * step).take_while(move |at| *at <= most * 1.001)
}

/// A tick's number without digits that say nothing.
pub(super) fn short_tick(tick: f64) -> String {
    if tick >= 1_000.0 {
        crate::figure::short(tick)
    } else {
        format!("{}", (tick * 1e3).round() / 1e3)
    }
}
