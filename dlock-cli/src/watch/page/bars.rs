//! Bars as SVG. Their lengths are milliseconds, which the page stretches to its width.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::html::{count, escaped, millis, time};
use super::lanes::Colours;
use crate::top::model::Moment;
use crate::top::text::short;
use crate::watch::record::{Bar, End, Kind};

/// How high a row is.
pub const HEIGHT: u32 = 26;

/// What bars are drawn with.
pub struct Pen<'a> {
    pub first: Moment,
    pub colours: &'a Colours,
}

impl Pen<'_> {
    pub fn draw(&self, svg: &mut String, bar: &Bar) {
        let (class, y, height) = match bar.kind {
            Kind::Hold => ("hold", 3, 13),
            Kind::Rest => ("rest", 3, 13),
            Kind::Wait => ("wait", 18, 5),
        };
        let start = bar.from.saturating_sub(self.first.elapsed);
        let (x, width) = (millis(start), millis(bar.length()));
        let colour = self.colours.of_site(bar.site());
        let tokens =
            bar.tokens.map_or_else(String::new, |(_, token)| format!(" data-token=\"{token}\""));
        // Writing into a `String` does not fail.
        let _ = write!(
            svg,
            "<rect class=\"{class} c{colour}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"{tokens}><title>{}</title></rect>",
            self.title(bar)
        );
        if bar.has_mark() {
            let end = millis(bar.to.saturating_sub(self.first.elapsed));
            let _ = write!(
                svg,
                "<path class=\"mark\" d=\"M{end} 9.5h.001\"><title>{}</title></path>",
                self.title(bar)
            );
        }
    }

    /// In lines: what, by whom, when, and how it ended.
    fn title(&self, bar: &Bar) -> String {
        let process = bar.process();
        let id = process.id.map_or_else(String::new, |id| format!("/{id}"));
        let span = format!(
            "{} to {} UTC ({})",
            time(self.clock(bar.from)),
            time(self.clock(bar.to)),
            short(bar.length())
        );
        let before = if bar.began_unseen { "; already there when the recording began" } else { "" };
        format!(
            "{}\n{}{id}{}\n{span}\n{}{before}",
            what(bar),
            escaped(&process.host),
            tokens(bar),
            end(bar)
        )
    }

    fn clock(&self, at: std::time::Duration) -> SystemTime {
        self.first.clock + at.saturating_sub(self.first.elapsed)
    }
}

fn what(bar: &Bar) -> String {
    let key =
        bar.key.as_ref().map_or_else(|| "several keys".to_owned(), |key| escaped(key.as_str()));
    let site = escaped(bar.site());
    match (bar.kind, bar.count) {
        (Kind::Hold, 1) => format!("{site} holds {key}"),
        (Kind::Rest, 1) => format!("{key} is kept for the rest of its min_hold, after {site}"),
        (Kind::Wait, 1) => format!("{site} waits for {key}"),
        (Kind::Hold, many) => format!("{site}: {} of {key}", count(many, "short hold")),
        (Kind::Rest, many) => format!("{key}, after {site}: {}", count(many, "rest")),
        (Kind::Wait, many) => format!("{site}: {} for {key}", count(many, "short wait")),
    }
}

fn tokens(bar: &Bar) -> String {
    match bar.tokens {
        None => String::new(),
        Some((least, most)) if least == most => format!(", token {least}"),
        Some((least, most)) => format!(", tokens {least} to {most}"),
    }
}

fn end(bar: &Bar) -> &'static str {
    match (bar.end, bar.kind) {
        _ if bar.count > 1 => "merged",
        (End::Open, _) => "it is there in the last sample",
        (End::Gone, Kind::Hold) => "then released, or ended by force",
        (End::Gone, Kind::Rest) => "then free",
        (End::Gone, Kind::Wait) => "then it was not seen any more",
        (End::RanOut, _) => "vanished: its lease was not renewed, and ran out",
        (End::Revoked, _) => "vanished: it was revoked",
        (End::Granted, _) => "then it held the key",
        (End::Unwatched, _) => "then the store did not answer",
    }
}
