//! The clocks of one machine, in terms of true time.

use super::Nanos;

/// The clocks of one machine. They run a little faster or slower than true time.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalClock {
    born: Nanos,
    /// Millionths by which it is faster.
    rate: i64,
    /// How long the machine has been suspended, by this clock. The monotonic clock does not count it.
    suspended: Nanos,
    /// How far the runtime's clock has been advanced.
    advanced: Nanos,
}

impl LocalClock {
    pub(super) const fn new(born: Nanos, rate: i64) -> Self {
        Self { born, rate, suspended: 0, advanced: 0 }
    }

    /// The clock that counts suspends.
    pub(super) fn boot(&self, now: Nanos) -> Nanos {
        scaled(now - self.born, self.rate)
    }

    /// Advances the monotonic clock to a moment. Returns by how much.
    pub(super) fn advance_to(&mut self, now: Nanos) -> Nanos {
        let advance = (self.boot(now) - self.suspended).saturating_sub(self.advanced);
        self.advanced += advance;
        advance
    }

    /// Notes that the runtime has advanced its clock by itself.
    pub(super) const fn has_advanced(&mut self, by: Nanos) {
        self.advanced += by;
    }

    /// How far the monotonic clock has to advance to reach a moment.
    pub(super) fn behind(&self, at: Nanos) -> Nanos {
        (self.boot(at) - self.suspended).saturating_sub(self.advanced)
    }

    /// The moment at which the monotonic clock has advanced this far since it began.
    pub(super) fn true_time_of(&self, local: Nanos) -> Nanos {
        self.born + unscaled(local + self.suspended, self.rate)
    }

    pub(super) const fn advanced(&self) -> Nanos {
        self.advanced
    }

    pub(super) fn resume(&mut self, since: Nanos, now: Nanos) {
        self.suspended += self.boot(now) - self.boot(since);
    }
}

/// This many nanoseconds, by a clock that is `rate` millionths faster.
pub(super) fn scaled(time: Nanos, rate: i64) -> Nanos {
    let scaled = i128::from(time) + i128::from(time) * i128::from(rate) / 1_000_000;
    Nanos::try_from(scaled).unwrap_or(Nanos::MAX)
}

/// The least number of nanoseconds after which such a clock shows `local`.
fn unscaled(local: Nanos, rate: i64) -> Nanos {
    let close = i128::from(local) * 1_000_000 / (1_000_000 + i128::from(rate));
    let mut time = Nanos::try_from(close).unwrap_or(Nanos::MAX).saturating_sub(2);
    while scaled(time, rate) < local {
        time += 1;
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_as_soon_as_the_local_clock_shows_its_deadline() {
        for rate in [-4_000, 0, 3, 4_000] {
            let clock = LocalClock::new(17, rate);
            for local in [0, 1, 999_999, 1_000_000, 123_456_789_012] {
                let at = clock.true_time_of(local);
                assert!(clock.boot(at) >= local, "{rate} {local}");
                assert!(at == 17 || clock.boot(at - 1) < local, "{rate} {local}");
            }
        }
    }

    #[test]
    fn the_monotonic_clock_stands_still_while_the_machine_is_suspended() {
        let mut clock = LocalClock::new(0, 0);
        assert_eq!(clock.advance_to(10), 10);
        clock.resume(10, 40);
        assert_eq!(clock.advance_to(50), 10);
        assert_eq!((clock.boot(50), clock.true_time_of(20)), (50, 50));
    }
}
