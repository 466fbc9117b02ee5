//! Release: awaited by the caller if possible, otherwise in the background.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::hold::{Closing, Ending, Hold};
use super::local_queue::Turn;
use super::telemetry;
use super::{Engine, NamedBackend};
use crate::backend::{Backend, Claim, Release, Released};
use crate::backoff::Backoff;
use crate::error::{BackendError, LockError, LostReason};

/// How long a caller waits for its release before it continues in the background.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// How much longer than a ttl an abandoned acquire is undone, because a server that was paused may
/// execute the old acquire when it resumes.
const PAUSED_SERVER_MARGIN: Duration = Duration::from_mins(1);

/// Releases the lease, and waits up to [`RELEASE_TIMEOUT`] for the answer.
///
/// # Errors
/// [`LockError::Lost`] if the lease had ended before, or the store no longer holds it. [`LockError::HeldTooLong`]
/// if `max_hold` ended the hold and a session backend had therefore released it already. A backend that cannot be
/// reached is not an error: the release continues in the background until the lease has ended.
///
/// Cancel safe: the release continues in the background.
pub(crate) async fn release(hold: Arc<Hold>) -> Result<(), LockError> {
    let mut releasing = Releasing { hold: Some((hold, None)), tried: false };
    let (before, answer) = releasing.first_try().await;
    let Some((hold, turn)) = releasing.hold.take() else { return Ok(()) };
    // A hold that had expired stays lost, whatever the backend answers. A late renewal may have acquired the lease
    // again after somebody else held it in between.
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
                // Ending the hold had already released it.
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
            // Lets the next task in the local queue ask: the backend decides.
            drop(turn);
            spawn(Arc::clone(&hold), None, true);
            lost_before()
        }
    }
}

/// Releases the lease in the background.
pub(crate) fn release_later(hold: Arc<Hold>) {
    let turn = hold.take_turn();
    spawn(hold, turn, false);
}

/// A release in progress. If it is dropped unfinished, it continues in the background.
struct Releasing {
    hold: Option<(Arc<Hold>, Option<Turn>)>,
    tried: bool,
}

impl Releasing {
    /// Returns whether the hold had already ended, and the answer of the backend.
    async fn first_try(&mut self) -> (Result<(), Ending>, Result<Released, BackendError>) {
        let Some((hold, front)) = &mut self.hold else { return (Ok(()), Ok(Released::Released)) };
        let Closing { before, turn, is_renewing } = hold.close();
        *front = turn;
        let mut wait_left = RELEASE_TIMEOUT.min(hold.claim.ttl);
        if is_renewing {
            let began = Instant::now();
            hold.renewal_finished(wait_left / 2).await;
            wait_left = wait_left.saturating_sub(began.elapsed());
        }
        self.tried = true;
        (before, ReleaseTask::of(hold).try_once(wait_left).await)
    }
}

impl Drop for Releasing {
    fn drop(&mut self) {
        if let Some((hold, turn)) = self.hold.take() {
            spawn(hold, turn, self.tried);
        }
    }
}

/// One lease to release, or one acquire to undo.
struct ReleaseTask<'a> {
    backend: &'a NamedBackend,
    claim: &'a Claim,
    how: How<'a>,
}

enum How<'a> {
    /// A lease that was held.
    Hold(&'a Hold),
    /// It is not known whether the claim was ever granted.
    Acquire { late_acquire: bool },
}

impl<'a> ReleaseTask<'a> {
    fn of(hold: &'a Hold) -> Self {
        Self { backend: &hold.backend, claim: &hold.claim, how: How::Hold(hold) }
    }

    async fn try_once(&self, wait_left: Duration) -> Result<Released, BackendError> {
        let release = match self.how {
            How::Hold(hold) => hold.release_with(),
            How::Acquire { late_acquire } => Release { keep_for: None, late_acquire },
        };
        // A panic of the backend counts as no answer, and must not reach the caller.
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

    /// Retries until the backend answers or `limit` has passed. The returned flag is true if the answer
    /// came after a failed attempt. The turn in the local queue is passed on after the first attempt in
    /// any case, because the backend decides who is next.
    async fn until_answered(
        &self,
        limit: Duration,
        turn: Option<Turn>,
    ) -> Option<(Released, bool)> {
        let until = Instant::now() + limit;
        let wait_left = RELEASE_TIMEOUT.min(self.claim.ttl);
        let mut pauses = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        let first = self.try_once(wait_left).await;
        drop(turn);
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

/// `tried`: an earlier attempt of this release may have been executed, so `NotHeld` does not prove a loss.
fn spawn(hold: Arc<Hold>, turn: Option<Turn>, tried: bool) {
    let runtime = Handle::try_current().unwrap_or_else(|_| hold.watchdog.runtime.clone());
    let tracker = hold.engine.background.clone();
    tracker.spawn_on(
        async move {
            let Closing { before, turn: still_had, is_renewing } = hold.close();
            let (ended_before, turn) = (before.is_err(), turn.or(still_had));
            if is_renewing {
                hold.renewal_finished(RELEASE_TIMEOUT / 2).await;
            }
            let answer = ReleaseTask::of(&hold).until_answered(hold.claim.ttl, turn).await;
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

/// An abandoned acquire.
pub(super) struct Abandoned {
    pub(super) claim: Claim,
    /// The store may still execute a request of it. Otherwise it has at most a queue position.
    pub(super) late_acquire: bool,
}

/// Undoes an acquire in the background.
pub(super) fn abandon_later(
    engine: &Engine,
    backend: &Arc<NamedBackend>,
    Abandoned { claim, late_acquire }: Abandoned,
    runtime: &Handle,
    turn: Option<Turn>,
) {
    let backend = Arc::clone(backend);
    let runtime = Handle::try_current().unwrap_or_else(|_| runtime.clone());
    engine.background.spawn_on(
        async move {
            let how = How::Acquire { late_acquire };
            let task = ReleaseTask { backend: &backend, claim: &claim, how };
            let answer = task.until_answered(claim.ttl + PAUSED_SERVER_MARGIN, turn).await;
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
