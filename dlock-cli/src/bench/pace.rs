//! How long a measurement lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// Tells all tasks to finish what they do: none is dropped while it holds a lock or waits for one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Pace {
    stop: Stop,
    began: Instant,
    length: Duration,
}

impl Pace {
    pub fn begin(stop: &Stop, length: Duration) -> Self {
        Self { stop: stop.clone(), began: Instant::now(), length }
    }

    pub fn goes_on(&self) -> bool {
        !self.stop.is_set() && self.began.elapsed() < self.length
    }

    /// How long it has taken.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// How long each run of an operation took. All that is measured runs in tasks: the runtime's main thread is woken later.
pub async fn timed<T, E, F: Future<Output = Result<T, E>>>(
    pace: &Pace,
    mut operation: impl FnMut() -> F,
) -> Result<Vec<Duration>, E> {
    let mut times = Vec::new();
    while pace.goes_on() {
        let began = Instant::now();
        operation().await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Waits for all tasks, also if one of them fails, so that none is dropped in the middle of something.
pub async fn all<E: 'static>(
    mut tasks: JoinSet<Result<Vec<Duration>, E>>,
) -> Result<Vec<Duration>, E> {
    let (mut times, mut failure) = (Vec::new(), None);
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Ok(more)) => times.extend(more),
            Ok(Err(error)) => failure = failure.or(Some(error)),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    failure.map_or(Ok(times), Err)
}
