//! Asks the store, again and again.

use std::time::{Duration, SystemTime};

use dlock_runtime::Registry;
use dlock_runtime::backend::LockState;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};

use super::model::Moment;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the store has answered.
#[derive(Debug)]
pub enum Answer {
    Sample(Moment, Vec<LockState>),
    Failed {
        problem: String,
        /// It is asked again after so long.
        pause: Duration,
    },
}

/// Asks a store.
pub struct Sampler {
    locks: Registry,
    prefix: String,
    interval: Duration,
    start: Instant,
}

impl Sampler {
    pub fn new(locks: Registry, prefix: String, interval: Duration) -> Self {
        Self { locks, prefix, interval, start: Instant::now() }
    }

    /// Now, on the clock of the samples.
    pub fn start(&self) -> Instant {
        self.start
    }

    pub async fn sample(&self) -> Result<(Moment, Vec<LockState>), String> {
        let answer = timeout(LIMIT, self.locks.inspect(&self.prefix)).await;
        let locks = answer
            .map_err(|_| format!("no answer within {LIMIT:?}"))?
            .map_err(|error| error.to_string())?;
        Ok((Moment { elapsed: self.start.elapsed(), clock: SystemTime::now() }, locks))
    }

    /// Samples until nobody receives the answers.
    pub async fn run(self, answers: Sender<Answer>) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let (answer, pause) = match self.sample().await {
                Ok((at, locks)) => {
                    failures = 0;
                    let pause = jittered(self.interval).saturating_sub(began.elapsed());
                    (Answer::Sample(at, locks), pause)
                }
                Err(problem) => {
                    failures += 1;
                    let pause = backoff(self.interval, failures);
                    (Answer::Failed { problem, pause }, pause)
                }
            };
            if answers.send(answer).await.is_err() {
                return;
            }
            sleep(pause).await;
        }
    }
}

/// A little more or less, so that samples do not keep step with work that is done every second.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.9..1.1))
}

/// Twice as long after each failure.
fn backoff(interval: Duration, failures: u32) -> Duration {
    let factor = 1 << failures.min(10);
    interval.saturating_mul(factor).min(LONGEST_PAUSE.max(interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_store_is_asked_less_often() {
        let pauses = [1, 2, 5, 1_000].map(|failures| backoff(Duration::from_secs(1), failures));
        assert_eq!(pauses, [2, 4, 10, 10].map(Duration::from_secs));
        assert_eq!(backoff(Duration::from_mins(1), 3), Duration::from_mins(1));
    }
}
