//! Giving a lease back: at once for who waits for it, in the background for who cannot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::hold::{Ending, Hold};
use super::local_queue::Turn;
use super::telemetry;
use super::{Engine, NamedBackend};
use crate::backend::{Backend, Claim, Release, Released};
use crate::backoff::Backoff;
use crate::error::{BackendError, LockError, LostReason};

/// How long a caller waits for its release; then it goes on in the background.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much longer than a ttl a background release is tried, for a server that was stopped and may
/// execute an old acquire when it goes on.
const LATE: Duration = Duration::from_mins(1);

/// Gives the lease back and waits for the answer, within bounds.
///
/// # Errors
/// [`LockError::Lost`] or [`LockError::HeldTooLong`] if the hold had ended before. A backend that
/// cannot be reached is no error of its own: the release goes on in the background until the lease has ended.
///
/// Cancel safe: the release goes on in the background.
pub(crate) async fn give_back(hold: Arc<Hold>) -> Result<(), LockError> {
    let place = hold.take_place();
    let mut returning = Returning { hold: Some((hold, place)), tried: false };
    let (before, answer) = returning.first_try().await;
    let Some((hold, place)) = returning.hold.take() else { return Ok(()) };
    // A proof that had ended stays ended, whatever the backend finds: a late renewal may have taken the lease
    // again when somebody else had held it in between.
    let lost_before = || match before {
        Err(lost @ Ending::Lost(_)) => Err(hold.error(lost, true)),
        Err(Ending::HeldTooLong(_)) | Ok(()) => Ok(()),
    };
    match answer {
        Ok(Released::Released) => {
            telemetry::released(hold.labels(), hold.token, || hold.since.elapsed());
            hold.untrack();
            lost_before()
        }
        Ok(Released::NotHeld) => {
            let ending = match before {
                // It was released when it ended.
                Err(ended) if hold.backend.capabilities.session => ended,
                Err(Ending::HeldTooLong(_)) | Ok(()) => {
                    telemetry::lost(
                        hold.labels(),
                        hold.token,
                        hold.since.elapsed(),
                        LostReason::NotHeld,
                    );
                    Ending::Lost(LostReason::NotHeld)
                }
                Err(lost) => lost,
            };
            telemetry::released(hold.labels(), hold.token, || hold.since.elapsed());
            hold.untrack();
            Err(hold.error(ending, true))
        }
        Err(error) => {
            telemetry::release_delayed(hold.labels(), &hold.backend.failures, &error);
            // The next task in the local queue may try: the backend decides.
            drop(place);
            spawn(Arc::clone(&hold), None, true);
            lost_before()
        }
    }
}

/// Gives the lease back in the background.
pub(crate) fn give_back_later(hold: Arc<Hold>) {
    let place = hold.take_place();
    spawn(hold, place, false);
}

/// A release under way: dropped unfinished, it goes on in the background.
struct Returning {
    hold: Option<(Arc<Hold>, Option<Turn>)>,
    tried: bool,
}

impl Returning {
    /// How the hold had ended before, and what the backend says.
    async fn first_try(&mut self) -> (Result<(), Ending>, Result<Released, BackendError>) {
        let Some((hold, _)) = &self.hold else { return (Ok(()), Ok(Released::Released)) };
        let began = Instant::now();
        let wait_left = PATIENCE.min(hold.claim.ttl);
        let before = hold.close(wait_left / 2).await;
        self.tried = true;
        let left = wait_left.saturating_sub(began.elapsed());
        (before, ReleaseTask::of(hold).try_once(left).await)
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let Some((hold, place)) = self.hold.take() {
            spawn(hold, place, self.tried);
        }
    }
}

/// One lease to give back, or one acquire to undo.
struct ReleaseTask<'a> {
    backend: &'a NamedBackend,
    claim: &'a Claim,
    /// `None` when it is not known whether the claim was ever granted.
    hold: Option<&'a Hold>,
    late_acquire: bool,
}

impl<'a> ReleaseTask<'a> {
    fn of(hold: &'a Hold) -> Self {
        let late_acquire = hold.in_doubt();
        Self { backend: &hold.backend, claim: &hold.claim, hold: Some(hold), late_acquire }
    }

    async fn try_once(&self, wait_left: Duration) -> Result<Released, BackendError> {
        let keep_for = self.hold.and_then(Hold::rest_to_keep);
        let release = Release { keep_for, late_acquire: self.late_acquire };
        // A backend that panics has not answered: its caller goes on all the same.
        let call = AssertUnwindSafe(|| self.backend.store.release(self.claim, release));
        let Ok(answer) = catch_unwind(call) else { return Err(self.failed("panicked in")) };
        if answer.is_ready() {
            return answer.await;
        }
        let answer = AssertUnwindSafe(answer).catch_unwind();
        match tokio::time::timeout(wait_left, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_panic)) => Err(self.failed("panicked in")),
            Err(_) => Err(self.failed("did not answer in time to")),
        }
    }

    fn failed(&self, how: &str) -> BackendError {
        BackendError::transient(format!("backend `{}` {how} a release", self.backend.name))
    }

    /// Tries until there is an answer or `limit` has passed; says with the answer whether it came
    /// only after a failed try. The place in the local queue passes on after the first try in any
    /// case: the backend decides who is next.
    async fn until_answered(
        &self,
        limit: Duration,
        place: Option<Turn>,
    ) -> Option<(Released, bool)> {
        let until = Instant::now() + limit;
        let wait_left = PATIENCE.min(self.claim.ttl);
        let mut pauses = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        let first = self.try_once(wait_left).await;
        drop(place);
        if let Ok(released) = first {
            return Some((released, false));
        }
        while Instant::now() < until {
            tokio::time::sleep(pauses.pause()).await;
            if let Ok(released) = self.try_once(wait_left).await {
                return Some((released, true));
            }
        }
        None
    }
}

/// `tried`: an earlier try of this very release may have been executed, so that finding nothing held
/// says nothing.
fn spawn(hold: Arc<Hold>, place: Option<Turn>, tried: bool) {
    let runtime = Handle::try_current().unwrap_or_else(|_| hold.runtime.clone());
    let tracker = hold.engine.background.clone();
    tracker.spawn_on(
        async move {
            let ended_before = hold.close(PATIENCE / 2).await.is_err();
            let answer = ReleaseTask::of(&hold).until_answered(hold.claim.ttl, place).await;
            match answer {
                Some((Released::NotHeld, repeated)) if !(tried || repeated || ended_before) => {
                    telemetry::lost(
                        hold.labels(),
                        hold.token,
                        hold.since.elapsed(),
                        LostReason::NotHeld,
                    );
                }
                Some(_) => {}
                None => telemetry::release_given_up(hold.labels(), &hold.backend.failures),
            }
            telemetry::released(hold.labels(), hold.token, || hold.since.elapsed());
            hold.untrack();
        },
        &runtime,
    );
}

/// An acquire that is given up.
pub(super) struct Abandoned {
    pub(super) claim: Claim,
    /// May a request of it still be executed? Otherwise it has a place in a queue at most.
    pub(super) late_acquire: bool,
}

/// Undoes an acquire in the background.
pub(super) fn abandon_later(
    engine: &Engine,
    backend: &Arc<NamedBackend>,
    Abandoned { claim, late_acquire }: Abandoned,
    runtime: &Handle,
    place: Option<Turn>,
) {
    let backend = Arc::clone(backend);
    let runtime = Handle::try_current().unwrap_or_else(|_| runtime.clone());
    engine.background.spawn_on(
        async move {
            let task = ReleaseTask { backend: &backend, claim: &claim, hold: None, late_acquire };
            let answer = task.until_answered(claim.ttl + LATE, place).await;
            if answer.is_none() {
                telemetry::abandon_given_up(
                    backend.labels("", &claim.key),
                    &backend.failures,
                    backend.store.kind(),
                );
            }
        },
        &runtime,
    );
}
