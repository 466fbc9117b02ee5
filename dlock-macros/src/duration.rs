//! Durations in options: `"5s"`, `"1m 30s"`, `"250ms"`.

use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(365 * 24);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The bounds of a duration option.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    zero: bool,
    least: Duration,
    most: Duration,
    /// The upper bound as a user would write it, and why it exists.
    most_shown: &'static str,
    most_reason: &'static str,
}

impl Bounds {
    /// A lease length. A lease shorter than 10 ms could expire within a round trip. One longer than
    /// a day would block others for that long after a crash, and renewal makes it unnecessary.
    pub(crate) const TTL: Self = Self {
        zero: false,
        least: Duration::from_millis(10),
        most: DAY,
        most_shown: "24h",
        most_reason: "a crashed holder would block others for that long; the lease is renewed while the body runs, so a short `ttl` is enough for a long body",
    };
    /// How long to wait for a contended lock. Zero tries once.
    pub(crate) const WAIT: Self = Self {
        zero: true,
        least: MILLISECOND,
        most: YEAR,
        most_shown: "365days",
        most_reason: "write `wait = \"forever\"` if it shall have no deadline",
    };
    /// A bound on a hold.
    pub(crate) const HOLD: Self = Self {
        zero: false,
        least: MILLISECOND,
        most: YEAR,
        most_shown: "365days",
        most_reason: "leave the option out if there shall be no such bound",
    };
    /// How long a lease may be passed on.
    pub(crate) const HANDOVER: Self = Self {
        zero: false,
        least: MILLISECOND,
        most: Duration::from_mins(1),
        most_shown: "1m",
        most_reason: "tasks of other processes wait for that long",
    };

    /// Parses a duration. The error says what to write instead.
    pub(crate) fn parse(self, text: &str) -> Result<Duration, String> {
        let duration = parse(text)?;
        if duration.is_zero() {
            return if self.zero {
                Ok(duration)
            } else {
                Err(format!(
                    "\"{text}\" is no time at all: write a number and a unit, such as \"5s\""
                ))
            };
        }
        if duration < self.least {
            let least = humantime::format_duration(self.least);
            return Err(format!("\"{text}\" is too short to be kept: the least is \"{least}\""));
        }
        if duration > self.most {
            let Self { most_shown, most_reason, .. } = self;
            return Err(format!("\"{text}\" is longer than \"{most_shown}\": {most_reason}"));
        }
        Ok(duration)
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err("the string is empty: write a number and a unit, such as \"5s\"".to_owned());
    }
    if trimmed.bytes().all(|byte| byte.is_ascii_digit()) {
        if trimmed.bytes().all(|byte| byte == b'0') {
            return Ok(Duration::ZERO);
        }
        return Err(format!("\"{text}\" has no unit: did you mean \"{trimmed}s\"?"));
    }
    if trimmed.starts_with('-') {
        return Err(format!("\"{text}\" is negative: write a number and a unit, such as \"5s\""));
    }
    humantime::parse_duration(trimmed).map_err(|error| {
        format!("\"{text}\" is not a duration ({error}): write numbers and units, such as \"5s\", \"250ms\" or \"1m 30s\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_durations_are_read() {
        assert_eq!(Bounds::TTL.parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(Bounds::HOLD.parse("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(Bounds::WAIT.parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(Bounds::WAIT.parse("0s"), Ok(Duration::ZERO));
        assert_eq!(Bounds::WAIT.parse("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_missing_unit_is_offered() {
        assert!(Bounds::TTL.parse("5").unwrap_err().contains("did you mean \"5s\"?"));
    }

    #[test]
    fn zero_and_absurd_durations_are_refused() {
        for absurd in ["0s", "0", "9ms", "25h", "2 years"] {
            assert!(Bounds::TTL.parse(absurd).is_err(), "{absurd}");
        }
        for absurd in ["0s", "1us", "2 years"] {
            assert!(Bounds::HOLD.parse(absurd).is_err(), "{absurd}");
        }
        assert!(Bounds::WAIT.parse("366days").is_err());
        assert!(Bounds::HOLD.parse("365days").is_ok());
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for nonsense in ["", " ", "five seconds", "-5s", "5 lightyears", "s", "5s;"] {
            assert!(Bounds::WAIT.parse(nonsense).unwrap_err().contains("\"5s\""), "{nonsense}");
        }
    }
}
