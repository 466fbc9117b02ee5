//! Whether a copy of an acquire may still be executed after it was answered.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::BackendError;

/// Notes that an acquire was sent again over another connection. The first copy may be executed at any time after, even
/// when its caller has given up because of what the second one was answered.
#[derive(Debug, Default)]
pub(crate) struct Doubt(AtomicBool);

impl Doubt {
    /// A copy was sent that is not awaited any more.
    pub(crate) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The answer, marked [`in_doubt`](super::Attempt::with_in_doubt) where there is doubt. An error does not say any
    /// more that nothing was sent.
    pub(crate) fn mark<T>(
        self,
        answer: Result<T, BackendError>,
        with_in_doubt: fn(T, bool) -> T,
    ) -> Result<T, BackendError> {
        let in_doubt = self.0.into_inner();
        match answer {
            Ok(attempt) => Ok(with_in_doubt(attempt, in_doubt)),
            Err(error) if in_doubt => Err(error.maybe_sent()),
            Err(error) => Err(error),
        }
    }
}
