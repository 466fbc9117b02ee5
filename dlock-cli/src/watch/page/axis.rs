//! The time of day above the timeline.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::html::{millis, seconds, time};

/// How far apart two marks of the axis may be, in milliseconds.
const STEPS: [u64; 26] = [
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    7_200_000,
    21_600_000,
    43_200_000,
    86_400_000,
    604_800_000,
];

/// How many marks an axis has at most.
const MOST: u64 = 10;

/// At so many percent of the width, a name still has room.
const LAST_NAME: f64 = 94.0;

/// The times on the axis, in milliseconds since the start, with their names. As the page's script chooses them.
fn ticks(start: SystemTime, length: Duration) -> Vec<(u64, String)> {
    let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let step = STEPS.into_iter().find(|step| length / step <= MOST).unwrap_or(STEPS[25]);
    let begin = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let begin = u64::try_from(begin.as_millis()).unwrap_or_default();
    let first = step - begin % step;
    let ticks = (0..=MOST).map(|number| first + number * step).filter(|at| *at <= length);
    let name = |at: u64| {
        let clock = start + Duration::from_millis(at);
        if step < 1_000 { time(clock) } else { seconds(clock) }
    };
    ticks.map(|at| (at, name(at))).collect()
}

/// Names above the timeline.
#[allow(clippy::cast_precision_loss)] // Parts of a picture's width.
pub fn names(start: SystemTime, length: Duration) -> String {
    let mut html = String::new();
    let whole = length.as_millis().max(1) as f64;
    for (at, name) in ticks(start, length) {
        let left = at as f64 / whole * 100.0;
        if left > LAST_NAME {
            break;
        }
        // Writing into a `String` does not fail.
        let _ = write!(html, "<span style=\"left:{left:.3}%\">{name}</span>");
    }
    html
}

/// Lines behind the rows, and the times in which the store did not answer.
pub fn grid(start: SystemTime, length: Duration, gaps: &[(Duration, Duration)]) -> String {
    let mut svg = format!(
        "<svg class=\"grid\" viewBox=\"0 0 {} 1\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
        millis(length)
    );
    for (from, to) in gaps {
        let (x, width) = (millis(*from), millis(to.saturating_sub(*from)));
        let _ = write!(
            svg,
            "<rect class=\"gap\" x=\"{x}\" width=\"{width}\" height=\"1\"><title>the store did not answer</title></rect>"
        );
    }
    svg.push_str("<g>");
    for (at, _) in ticks(start, length) {
        let _ = write!(svg, "<path d=\"M{at} 0v1\"/>");
    }
    svg + "</g></svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_at_round_times_of_day() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_887_910_120);
        let shown = ticks(start, Duration::from_secs(7));
        assert_eq!(shown[0], (880, "17:45:11".to_owned()));
        assert_eq!(shown.len(), 7);
        for length in [0, 1, 1_000, 59_999, 86_400_000, 9_000_000_000] {
            assert!(ticks(start, Duration::from_millis(length)).len() <= 11, "{length}");
        }
        assert!(
            ticks(start, Duration::from_hours(9)).iter().all(|(_, name)| name.ends_with(":00:00"))
        );
    }
}
