//! A picture of the runs: a lane for each server, a bar for each purchase.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::event::Outcome;
use crate::sale::{Hold, Kind, Sale};

const WIDTH: u32 = 1_000;
const LANE: u32 = 34;
const MARGIN: u32 = 110;
const ROOM_FOR_THE_LEGEND: f64 = 1.2;

const OUTCOMES: [(Outcome, &str, RGBColor); 4] = [
    (Outcome::Sold, "sold", RGBColor(46, 125, 50)),
    (Outcome::SoldOut, "sold out", RGBColor(158, 158, 158)),
    (Outcome::Refused, "refused by token", RGBColor(239, 108, 0)),
    (Outcome::Killed, "killed", RGBColor(198, 40, 40)),
];

/// Draws all runs, one below the other.
pub fn draw(path: &Path, sales: &[Sale]) -> Result<()> {
    let heights: Vec<u32> = sales.iter().map(height).collect();
    let root = SVGBackend::new(path, (WIDTH, heights.iter().sum())).into_drawing_area();
    let failed =
        |error: DrawingAreaErrorKind<_>| anyhow!("the timeline could not be drawn: {error}");
    root.fill(&WHITE).map_err(failed)?;
    let mut rest = root.clone();
    for (sale, height) in sales.iter().zip(heights) {
        let (panel, below) = rest.split_vertically(height);
        draw_sale(&panel, sale).map_err(failed)?;
        rest = below;
    }
    root.present().map_err(failed)
}

fn height(sale: &Sale) -> u32 {
    u32::try_from(sale.servers).unwrap_or(1) * LANE + MARGIN
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failed<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn draw_sale<'a>(panel: &Panel<'a>, sale: &Sale) -> std::result::Result<(), Failed<'a>> {
    let origin = sale.holds.iter().map(|hold| hold.began).min().unwrap_or(0);
    let seconds =
        |at: u64| std::time::Duration::from_micros(at.saturating_sub(origin)).as_secs_f64();
    let end = sale.holds.iter().map(|hold| seconds(hold.ended)).fold(0.01, f64::max);
    let lanes = i32::try_from(sale.servers).unwrap_or(1);
    let mut chart = ChartBuilder::on(panel)
        .caption(title(sale), ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..end * ROOM_FOR_THE_LEGEND, (0..lanes - 1).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc("seconds since the first purchase")
        .y_label_formatter(&|lane| match lane {
            SegmentValue::CenterOf(lane) => format!("server {lane}"),
            SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
        })
        .draw()?;
    for (outcome, name, colour) in OUTCOMES {
        let of_outcome: Vec<&Hold> =
            sale.holds.iter().filter(|hold| hold.outcome == outcome).collect();
        if of_outcome.is_empty() {
            continue;
        }
        let bars = of_outcome.into_iter().map(|hold| {
            let lane = i32::try_from(hold.server).unwrap_or(0);
            let from = (seconds(hold.began), SegmentValue::Exact(lane));
            // A hold of no width would not be seen.
            let to = seconds(hold.ended).max(seconds(hold.began) + end / 300.0);
            let mut bar =
                Rectangle::new([from, (to, SegmentValue::Exact(lane + 1))], colour.filled());
            bar.set_margin(5, 5, 0, 0);
            bar
        });
        chart
            .draw_series(bars)?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .draw()
}

fn title(sale: &Sale) -> String {
    let name = match sale.kind {
        Kind::WithoutLock => "Without the lock",
        Kind::WithLock => "With the lock",
        Kind::WithCrash => "With the lock, server 0 killed and server 1 paused in mid-purchase",
    };
    format!("{name}: sold {} of {}, oversold {}", sale.sold, sale.stock, sale.oversold())
}
