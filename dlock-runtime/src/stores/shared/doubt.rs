//! Whether a copy of an acquire may still be executed after the acquire was answered.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::BackendError;

/// Notes that an acquire was sent again over another connection. The first copy may be executed at any later time, even
/// after the caller has given up because of the answer to the second copy.
#[derive(Debug, Default)]
pub(crate) struct Doubt(AtomicBool);

impl Doubt {
    /// Notes that a copy was sent whose answer is no longer awaited.
    pub(crate) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Was such a copy sent?
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Marks the answer as [`in_doubt`](crate::backend::Attempt::with_in_doubt) if there is doubt. An error then no
    /// longer claims that nothing was sent.
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
