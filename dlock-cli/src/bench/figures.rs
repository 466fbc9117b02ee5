//! What was measured.

use std::time::Duration;

use serde_json::{Value, json};

/// A rate, and how long single operations took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

impl Figures {
    #[allow(clippy::cast_precision_loss)] // Not that many.
    fn of(mut times: Vec<Duration>, elapsed: Duration) -> Self {
        times.sort_unstable();
        let per_second = times.len() as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
        Self { per_second, p50: percentile(&times, 50), p99: percentile(&times, 99) }
    }

    pub fn to_json(self) -> Value {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        json!({ "per_second": self.per_second, "p50_us": micros(self.p50), "p99_us": micros(self.p99) })
    }
}

/// Times of single operations, and how long all of them took together.
#[derive(Debug, Default)]
pub struct Times {
    all: Vec<Duration>,
    elapsed: Duration,
}

impl Times {
    pub fn add(&mut self, times: Vec<Duration>, elapsed: Duration) {
        self.all.extend(times);
        self.elapsed += elapsed;
    }

    pub fn figures(self) -> Figures {
        Figures::of(self.all, self.elapsed)
    }
}

/// The time that so many percent of them do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let position = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(position).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_times() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let figures = Figures::of(times, Duration::from_secs(4));
        let (p50, p99) = (Duration::from_millis(100), Duration::from_millis(198));
        assert_eq!(figures, Figures { per_second: 50.0, p50, p99 });
        assert_eq!(Figures::of(vec![], Duration::ZERO).p99, Duration::ZERO);
    }
}
