//! Draws the runs: a lane for each server, a bar for each purchase.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Text};

use crate::event::{Micros, Outcome};
use crate::sale::{Hold, Kind, Sale};

const WIDTH: f64 = 1_000.0;
const LANE: f64 = 34.0;
/// Above the lanes: the title. Below them: the axis and its label.
const ABOVE: f64 = 40.0;
const BELOW: f64 = 60.0;
/// Beside the lanes: the servers' names and the legend.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 170.0;

const OUTCOMES: [(Outcome, &str, &str); 4] = [
    (Outcome::Sold, "sold", "#2e7d32"),
    (Outcome::SoldOut, "sold out", "#9e9e9e"),
    (Outcome::Refused, "rejected by token", "#ef6c00"),
    (Outcome::Killed, "killed", "#c62828"),
];

/// Draws all runs, one below the other.
pub fn draw(path: &Path, sales: &[Sale]) -> Result<()> {
    let mut document = Document::new()
        .set("font-family", "sans-serif")
        .set("font-size", 12)
        .add(Rectangle::new().set("width", "100%").set("height", "100%").set("fill", "white"));
    let mut top = 0.0;
    for sale in sales {
        document = document.add(panel(sale).set("transform", format!("translate(0 {top})")));
        top += ABOVE + height(sale.servers) + BELOW;
    }
    let document = document.set("width", WIDTH).set("height", top);
    svg::save(path, &document.set("viewBox", (0, 0, WIDTH, top)))
        .context("the timeline could not be drawn")
}

/// The height of this many lanes.
fn height(lanes: usize) -> f64 {
    f64::from(u32::try_from(lanes).unwrap_or(0)) * LANE
}

/// The time span of a panel, and its mapping to positions on the page.
struct Axis {
    origin: Micros,
    seconds: f64,
}

impl Axis {
    fn of(holds: &[Hold]) -> Self {
        let origin = holds.iter().map(|hold| hold.began).min().unwrap_or(0);
        let end = holds.iter().map(|hold| hold.ended).max().unwrap_or(0);
        Self { origin, seconds: since(origin, end).max(0.01) }
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + seconds / self.seconds * (WIDTH - LEFT - RIGHT)
    }

    fn x_of(&self, at: Micros) -> f64 {
        self.x(since(self.origin, at))
    }

    /// The step of the ticks: 1, 2 or 5 times a power of ten, for four to ten ticks.
    fn step(&self) -> f64 {
        let power = 10_f64.powf((self.seconds / 10.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        steps.into_iter().find(|step| self.seconds / step <= 10.0).unwrap_or(self.seconds)
    }
}

fn since(origin: Micros, at: Micros) -> f64 {
    Duration::from_micros(at.saturating_sub(origin)).as_secs_f64()
}

fn panel(sale: &Sale) -> Group {
    let axis = Axis::of(&sale.holds);
    let bottom = ABOVE + height(sale.servers);
    let mut panel = Group::new().add(
        text(title(sale), WIDTH / 2.0, 25.0).set("text-anchor", "middle").set("font-size", 18),
    );
    for server in 0..sale.servers {
        let middle = ABOVE + height(server) + LANE / 2.0 + 4.0;
        let name = text(format!("server {server}"), LEFT - 8.0, middle);
        panel = panel.add(name.set("text-anchor", "end"));
    }

    let step = axis.step();
    let ticks = (0_u32..).map(|tick| f64::from(tick) * step);
    // As many digits as needed to distinguish the ticks.
    let digits = [1.0, 0.1, 0.01].into_iter().filter(|&unit| step < unit).count();
    for seconds in ticks.take_while(|&seconds| seconds <= axis.seconds) {
        let x = axis.x(seconds);
        panel = panel.add(line((x, ABOVE), (x, bottom)).set("stroke", "#e0e0e0")).add(
            text(format!("{seconds:.digits$}"), x, bottom + 18.0).set("text-anchor", "middle"),
        );
    }
    panel = panel
        .add(line((LEFT, ABOVE), (LEFT, bottom)))
        .add(line((LEFT, bottom), (WIDTH - RIGHT, bottom)))
        .add(
            text("seconds since the first purchase", (LEFT + WIDTH - RIGHT) / 2.0, bottom + 40.0)
                .set("text-anchor", "middle"),
        );

    let mut legend = ABOVE + 16.0;
    for (outcome, name, colour) in OUTCOMES {
        let mut holds = sale.holds.iter().filter(|hold| hold.outcome == outcome).peekable();
        if holds.peek().is_none() {
            continue;
        }
        let x = WIDTH - RIGHT + 20.0;
        let sample = rectangle(x, legend - 10.0, 12.0, 10.0).set("fill", colour);
        panel = panel.add(sample).add(text(name, x + 20.0, legend));
        legend += 20.0;
        for hold in holds {
            let (from, to) = (axis.x_of(hold.began), axis.x_of(hold.ended));
            // A hold without width would be invisible.
            let bar =
                rectangle(from, ABOVE + height(hold.server) + 5.0, (to - from).max(2.0), 24.0);
            panel = panel.add(bar.set("fill", colour));
        }
    }
    panel
}

fn text(content: impl Into<String>, x: f64, y: f64) -> Text {
    Text::new(content).set("x", x).set("y", y)
}

fn line(from: (f64, f64), to: (f64, f64)) -> Line {
    let line = Line::new().set("x1", from.0).set("y1", from.1).set("x2", to.0).set("y2", to.1);
    line.set("stroke", "black")
}

fn rectangle(x: f64, y: f64, width: f64, height: f64) -> Rectangle {
    Rectangle::new().set("x", x).set("y", y).set("width", width).set("height", height)
}

fn title(sale: &Sale) -> String {
    let name = match sale.kind {
        Kind::WithoutLock => "Without the lock",
        Kind::WithLock => "With the lock",
        Kind::WithCrash => "With the lock, server 0 killed and server 1 paused during a purchase",
    };
    format!("{name}: sold {} of {}, oversold {}", sale.sold, sale.stock, sale.oversold())
}
