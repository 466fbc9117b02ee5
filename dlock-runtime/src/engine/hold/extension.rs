//! Extending a hold beyond its limits, at its owner's request.

use std::sync::Arc;
use std::time::Duration;

use super::{Hold, InFlight, Phase, Renewing};
use crate::clock::Moment;
use crate::engine::watchdog;
use crate::error::LockError;

/// The longest allowed extension of a hold.
const LONGEST_EXTENSION: Duration = Duration::from_hours(366 * 24);

impl Hold {
    /// Extends the hold to last at least `least` from now, and renews the lease. Cancel safe: the
    /// extension is recorded before the first await.
    pub(crate) async fn extend(self: &Arc<Self>, least: Duration) -> Result<(), LockError> {
        if least > LONGEST_EXTENSION {
            return Err(LockError::Unsupported {
                backend: (&*self.backend().name).into(),
                option: format!("an extension by {least:?}: the longest is {LONGEST_EXTENSION:?}")
                    .into(),
            });
        }
        let check = || self.check().map_err(|ending| self.error(ending, false));
        check()?;
        {
            let mut state = self.state();
            let until = state.extended_to_age().max(self.age() + least);
            state.rare().extended_to_age = until;
            self.note_fine(&state);
        }
        // In its own task, because a renewal that was sent must be awaited to its end.
        let hold = Arc::clone(self);
        let proving = self.watchdog.runtime.spawn(async move { hold.renew_now().await });
        // If that runtime is stalled, no renewal arrives and the hold ends with its validity.
        tokio::select! {
            biased;
            _ = proving => {}
            _ = self.ended() => {}
        }
        check()
    }

    /// Renews the lease, after the renewal in flight if there is one.
    pub(crate) async fn renew_now(self: Arc<Self>) {
        loop {
            let changed = self.changed();
            let free = self.settled(&Moment::now(), |state| {
                if state.phase != Phase::Held {
                    return None;
                }
                let is_free = !state.is_renewing();
                // If another renewal is in flight, this asks to be notified of its end.
                state.renewal = if is_free { Renewing::InFlight } else { Renewing::Awaited };
                Some(is_free)
            });
            match free {
                None => return,
                Some(true) => break,
                Some(false) => changed.await,
            }
        }
        watchdog::renew_now(InFlight::new(self)).await;
    }

    /// Makes the release keep the key for at least this long from now.
    pub(crate) fn keep_at_least(&self, min_hold: Duration) {
        let mut state = self.state();
        state.keep_until(self.age() + min_hold);
    }
}
