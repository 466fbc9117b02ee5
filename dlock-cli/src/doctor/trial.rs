//! A trial lock.

use std::fmt;
use std::time::{Duration, Instant};

use dlock_runtime::Registry;
use serde_json::{Value, json};

use crate::exit::Failure;

/// How often each operation is timed.
const TIMES: usize = 20;

/// How long things take from here: medians.
pub struct Trial {
    /// A read.
    round_trip: Duration,
    /// A lock that nobody else wants, from its acquire to its release.
    cycle: Duration,
}

impl Trial {
    pub async fn of(locks: &Registry) -> Result<Self, Failure> {
        let key = format!("dlock:doctor:{:016x}", rand::random::<u64>());
        let (mut reads, mut cycles) = (vec![], vec![]);
        for _ in 0..TIMES {
            let began = Instant::now();
            locks.lock(&*key).inspect().await?;
            reads.push(began.elapsed());
            let began = Instant::now();
            locks.lock(&*key).label("dlock doctor").acquire().await?.release().await?;
            cycles.push(began.elapsed());
        }
        Ok(Self { round_trip: median(reads), cycle: median(cycles) })
    }

    pub fn to_json(&self) -> Value {
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        json!({ "round_trip_ms": millis(self.round_trip), "lock_and_release_ms": millis(self.cycle) })
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round_trip, cycle } = self;
        write!(
            f,
            "a read takes {round_trip:.1?}, a lock and its release {cycle:.1?} (medians of {TIMES})"
        )
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
