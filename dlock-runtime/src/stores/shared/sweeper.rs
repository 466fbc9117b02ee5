//! Deletes unused rows of an SQL table now and then, in the background.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::error::BackendError;

/// The shortest time between two sweeps of one process. Other processes sweep as well.
const EVERY: Duration = Duration::from_secs(30);

/// The time of the next sweep, and the sweep in progress, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Sweeping(Mutex<State>);

#[derive(Debug)]
struct State {
    due: Instant,
    task: Option<AbortHandle>,
}

impl Default for Sweeping {
    fn default() -> Self {
        Self(Mutex::new(State { due: next(), task: None }))
    }
}

impl Sweeping {
    /// Starts a sweep in the background if one is due.
    pub(crate) fn start_if_due<F>(&self, sweep: impl FnOnce() -> F)
    where
        F: Future<Output = Result<(), BackendError>> + Send + 'static,
    {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if Instant::now() < state.due {
            return;
        }
        state.due = next();
        let sweep = sweep();
        let task = tokio::spawn(async move {
            if let Err(error) = sweep.await {
                tracing::debug!(target: "dlock", %error, "deleting unused rows failed; it will be retried");
            }
        });
        state.task = Some(task.abort_handle());
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = &state.task {
            task.abort();
        }
    }
}

/// Adds jitter, so that processes that started together do not sweep together.
fn next() -> Instant {
    Instant::now() + EVERY.mul_f64(rand::random_range(1.0..=2.0))
}
