//! The page: a recording as one HTML file that needs nothing else.

mod axis;
mod bars;
mod blame;
mod html;
mod lanes;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::Duration;

use dlock_runtime::LockKey;

use self::bars::{HEIGHT, Pen};
use self::html::{count, date, escaped, millis, seconds};
use self::lanes::{Lane, Lanes, Name};
use super::record::{Bar, Kind, MOST_BARS, Process, Recording};
use crate::top::model::{Model, Moment};
use crate::top::shows::Shows;
use crate::top::text::short;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What is recorded.
pub struct Subject {
    /// Without anything secret.
    pub store: String,
    pub prefix: String,
    pub interval: Duration,
    pub shows: Shows,
}

/// Writes the page. `is_complete`: will nothing be added?
pub fn render(
    subject: &Subject,
    recording: &Recording,
    model: &Model,
    is_complete: bool,
) -> String {
    // Only the page's own script may run, and nothing is loaded, whatever a key contains.
    let nonce = format!("{:032x}", rand::random::<u128>());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{} – dlock watch</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        escaped(&subject.store)
    );
    match recording.span() {
        Some((first, last)) => {
            body(&mut page, subject, recording, model, (first, last, is_complete));
        }
        None => page.push_str("<p>Nothing has been recorded yet.</p>"),
    }
    // Writing into a `String` does not fail.
    let _ = write!(page, "<script nonce=\"{nonce}\">\n{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

fn body(
    page: &mut String,
    subject: &Subject,
    recording: &Recording,
    model: &Model,
    (first, last, is_complete): (Moment, Moment, bool),
) {
    let mut all: Vec<_> = recording.bars().collect();
    // Those that are open may be more than any page can show.
    all.sort_by_key(|bar| (!bar.has_mark(), std::cmp::Reverse(bar.length())));
    let hidden = all.len().saturating_sub(MOST_BARS);
    let lanes = Lanes::of(&all[..all.len() - hidden]);
    head(page, subject, (first, last, is_complete), model.samples());
    summary(page, &all);
    toolbar(page, &lanes);
    timeline(page, &lanes, recording, first, last);
    notes(page, subject, recording, model, (hidden, lanes.left_out));
    let _ = write!(
        page,
        "<h2>Who was waited for</h2>\n<p>While a lock is held, the time that others wait for it is charged to the site that holds it.</p>\n{}\n",
        blame::section(model)
    );
}

fn head(
    page: &mut String,
    subject: &Subject,
    (first, last, is_complete): (Moment, Moment, bool),
    samples: u64,
) {
    let keys = match subject.prefix.as_str() {
        "" => "all keys".to_owned(),
        prefix => format!("keys that begin with <b>{}</b>", escaped(prefix)),
    };
    let state = if is_complete { "complete" } else { "recording; reload for more" };
    let length = last.elapsed.saturating_sub(first.elapsed);
    let _ = write!(
        page,
        "<header><h1>Locks of {}</h1> <span class=\"state {}\">{state}</span>\n\
         <p>{keys} · {} {} to {} UTC ({}) · {}, one every {}</p></header>\n",
        escaped(&subject.store),
        if is_complete { "complete" } else { "recording" },
        date(first.clock),
        seconds(first.clock),
        seconds(last.clock),
        short(length),
        count(samples, "sample"),
        humantime::format_duration(subject.interval),
    );
}

fn summary(page: &mut String, bars: &[&Bar]) {
    let sum =
        |kind: Kind| bars.iter().filter(|bar| bar.kind == kind).map(|bar| bar.count).sum::<u64>();
    let marks = bars.iter().filter(|bar| bar.has_mark()).count();
    let vanished = match marks {
        0 => String::new(),
        _ => format!("<li class=\"alarm\"><b>{marks}</b> vanished</li>"),
    };
    let (holds, waits) = (sum(Kind::Hold), sum(Kind::Wait));
    let _ = writeln!(
        page,
        "<ul class=\"sums\"><li><b>{holds}</b> {}</li><li><b>{waits}</b> {}</li>{vanished}</ul>",
        if holds == 1 { "hold" } else { "holds" },
        if waits == 1 { "wait" } else { "waits" },
    );
}

/// The colours, the filter, and buttons that do what wheel and mouse do.
fn toolbar(page: &mut String, lanes: &Lanes<'_>) {
    page.push_str("<div class=\"tools js\"><input type=\"search\" placeholder=\"filter: key, site, process\" aria-label=\"filter\"> <button data-zoom=\"0.5\" aria-label=\"zoom in\">+</button> <button data-zoom=\"2\" aria-label=\"zoom out\">−</button> <button data-zoom=\"0\">whole recording</button> <span class=\"hint\">wheel: zoom · drag: move · drag on the times: choose a part</span></div>\n<ul class=\"legend\">");
    for (colour, site) in lanes.colours.sites().iter().enumerate() {
        let _ = write!(page, "<li><i class=\"c{colour}\"></i>{}</li>", escaped(site));
    }
    if lanes.colours.others() > 0 {
        let _ = write!(
            page,
            "<li><i class=\"c12\"></i>{}</li>",
            count(lanes.colours.others() as u64, "other site")
        );
    }
    page.push_str("<li class=\"key\"><i class=\"tall\"></i>holds</li><li class=\"key\"><i class=\"low\"></i>waits</li><li class=\"key\"><i class=\"dot\"></i>vanished</li></ul>\n");
}

fn timeline(
    page: &mut String,
    lanes: &Lanes<'_>,
    recording: &Recording,
    first: Moment,
    last: Moment,
) {
    let length = last.elapsed.saturating_sub(first.elapsed).max(Duration::from_millis(1));
    let start = first.clock.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let gaps: Vec<_> = recording
        .gaps()
        .iter()
        .map(|(from, to)| (from.saturating_sub(first.elapsed), to.saturating_sub(first.elapsed)))
        .collect();
    let _ = write!(
        page,
        "<div class=\"timeline\" data-start=\"{}\" data-length=\"{}\">\n<div class=\"axis\"><div class=\"times\">{}</div></div>\n<div class=\"rows\">{}\n",
        start.as_millis(),
        millis(length),
        axis::names(first.clock, length),
        axis::grid(first.clock, length, &gaps),
    );
    let pen = Pen { first, colours: &lanes.colours };
    for (process, lanes) in &lanes.processes {
        section(page, process, lanes, &pen, length);
    }
    if lanes.processes.is_empty() {
        page.push_str("<p class=\"none\">No lock was held or waited for.</p>");
    }
    page.push_str("</div></div>\n");
}

/// The rows of a process; one that has a single row needs no line of its own.
fn section(
    page: &mut String,
    process: &Process,
    lanes: &[Lane<'_>],
    pen: &Pen<'_>,
    length: Duration,
) {
    let id = process.id.map_or_else(String::new, |id| format!("/{id}"));
    let process = format!("{}{id}", escaped(&process.host));
    page.push_str("<section>");
    let heading = if let [_] = lanes {
        format!("<b>{process}</b> ")
    } else {
        let _ = writeln!(page, "<h3>{process}</h3>");
        String::new()
    };
    for lane in lanes {
        let name = match lane.name {
            Name::Key(key) => escaped(key),
            Name::Site(site) => format!("<i>{}, all keys</i>", escaped(site)),
        };
        let _ = write!(
            page,
            "<div class=\"row\" data-s=\"{}\"><div class=\"name\">{heading}{name}</div>\
             <svg viewBox=\"0 0 {} {HEIGHT}\" preserveAspectRatio=\"none\">",
            searched(&process, lane),
            millis(length)
        );
        let mut bars = lane.bars.clone();
        bars.sort_by_key(|bar| bar.from);
        for bar in bars {
            pen.draw(page, bar);
        }
        page.push_str("</svg></div>\n");
    }
    page.push_str("</section>\n");
}

/// What the filter looks at: a few of the texts, since a row of a site may have thousands of keys.
fn searched(process: &str, lane: &Lane<'_>) -> String {
    let mut texts: Vec<_> = lane.bars.iter().map(|bar| bar.site()).collect();
    texts.extend(lane.bars.iter().filter_map(|bar| bar.key.as_ref()).map(LockKey::as_str));
    texts.sort_unstable();
    texts.dedup();
    let texts: Vec<_> = texts.into_iter().take(200).map(escaped).collect();
    format!("{process}\n{}", texts.join("\n")).to_lowercase()
}

fn notes(
    page: &mut String,
    subject: &Subject,
    recording: &Recording,
    model: &Model,
    (bars, rows): (usize, usize),
) {
    let interval = humantime::format_duration(subject.interval);
    let ends = if subject.shows.knows_grants() {
        "A mark shows where a holder vanished: its lease was not renewed and ran out, or it was revoked. A hold that somebody releases by force looks like one that is released."
    } else {
        "This store does not show whether a session has ended or its holder has released the lock, so only revoked holds are marked."
    };
    let _ = write!(
        page,
        "<div class=\"notes\"><p>Drawn from samples, one every {interval}: what came and went between two of them is not seen, and beginnings and ends are exact to that. {ends} {}</p>",
        subject.shows.caveat(model.has_seen_waiters()).replace('`', "")
    );
    if recording.is_merged() {
        page.push_str("<p><b>Merged:</b> the recording is long, so short bars that follow one another are drawn as one. Its tooltip says how many they are.</p>");
    }
    if recording.forgotten() + bars as u64 > 0 {
        let _ = write!(
            page,
            "<p><b>Left out:</b> {} holds and waits that did not fit into {MOST_BARS} bars.</p>",
            recording.forgotten() + bars as u64
        );
    }
    if rows > 0 {
        let _ = write!(
            page,
            "<p><b>Left out:</b> {} with the shortest bars.</p>",
            count(rows as u64, "row")
        );
    }
    page.push_str("</div>\n");
}
