//! Numbers with their spread and their unit.

use serde::Serialize;

/// What was measured several times.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Half of the samples are below.
    pub median: f64,
    /// A quarter of the samples is below.
    pub low: f64,
    /// A quarter of the samples is above.
    pub high: f64,
}

impl Spread {
    /// The spread of these samples, which must not be empty.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |share| quantile(&samples, share).expect("samples");
        Self { median: at(0.5), low: at(0.25), high: at(0.75) }
    }
}

/// What this share of the sorted samples is below.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small index")]
    let at = |index: f64| sorted[index as usize];
    let last = crate::contender::count(sorted.len()) - 1.0;
    let place = last * share;
    let (low, high) = (place.floor(), place.ceil());
    (!sorted.is_empty()).then(|| at(low) + (at(high) - at(low)) * (place - low))
}

/// Another number about a contender.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it says.
    pub name: &'static str,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: Unit,
}

impl Figure {
    /// A number with its unit.
    #[must_use]
    pub const fn new(name: &'static str, value: f64, unit: Unit) -> Self {
        Self { name, value, unit }
    }
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// So many.
    Count,
    /// How often in a second.
    PerSecond,
    /// Nanoseconds.
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// A part of one core, in percent.
    PercentOfACore,
    /// Bytes.
    Bytes,
    /// So many times as much.
    Times,
}

impl Unit {
    /// The number as text, with its unit.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Count => short(value),
            Self::PerSecond => format!("{}/s", short(value)),
            Self::Nanoseconds => format!("{} ns", short(value)),
            Self::Microseconds => format!("{} µs", short(value)),
            Self::Milliseconds => format!("{} ms", short(value)),
            Self::PercentOfACore => format!("{} %", short(value)),
            Self::Bytes if value.abs() >= 1_048_576.0 => format!("{:.1} MiB", value / 1_048_576.0),
            Self::Bytes if value.abs() >= 10_240.0 => format!("{:.1} KiB", value / 1_024.0),
            Self::Bytes => format!("{value:.0} B"),
            Self::Times => format!("{value:.2}"),
        }
    }
}

/// Three digits or all digits of a whole number, in groups of three.
#[must_use]
pub fn short(value: f64) -> String {
    if value == 0.0 || value.abs() >= 99.95 {
        return grouped(&format!("{value:.0}"));
    }
    let digits = if value.abs() >= 9.995 { 1 } else { 2 };
    format!("{value:.digits$}")
}

/// With commas between thousands.
fn grouped(digits: &str) -> String {
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len() - index;
        if index > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
