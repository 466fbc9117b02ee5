//! Release: awaited by the caller if possible, otherwise in the background.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::hold::{Closing, Ending, Hold};
use super::local_queue::Turn;
use super::passing::close_or_pass;
use super::telemetry::{self, Labels, Operation};
use super::{Engine, NamedBackend};
use crate::backend::{Backend, Claim, Release, Released};
use crate::backoff::Backoff;
use crate::error::{BackendError, LockError, LostReason};
use crate::timer;

/// How long a caller waits for its release before it continues in the background.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// How much longer than a ttl a claim is released whose acquire may still be executed, because a server that was paused
/// may execute it when it resumes.
const PAUSED_SERVER_MARGIN: Duration = Duration::from_mins(1);

/// How long a release is repeated on a backend with sessions, where nothing ends by itself while the session lasts: a
/// session may outlive an outage of any length, and with it whatever was not released.
const SESSION_OUTAGE: Duration = Duration::from_hours(1);

/// Ends the hold. Passes its lease to the next task of this process, or releases it and waits up to [`RELEASE_TIMEOUT`]
/// for the answer.
///
/// # Errors
/// [`LockError::Lost`] if the lease had ended before, or the store no longer holds it. [`LockError::HeldTooLong`]
/// if `max_hold` ended the hold and a session backend had therefore released it already. A backend that cannot be
/// reached is not an error: the release continues in the background until the lease has ended.
///
/// Cancel safe: the release continues in the background.
pub(crate) async fn release(hold: &Arc<Hold>) -> Result<(), LockError> {
    if hold.has_children() {
        let unfinished = Unfinished(Some(hold));
        Box::pin(hold.stop_children()).await;
        unfinished.done();
    }
    let Some(mut closing) = close_or_pass(hold) else { return Ok(()) };
    let turn = closing.turn.take();
    let mut releasing = Releasing { hold: Some(hold), turn, tried: false };
    let answer = releasing.first_try(hold, &closing).await;
    let before = closing.before;
    releasing.hold = None;
    let turn = releasing.turn.take();
    // A hold that had expired stays lost, whatever the backend answers. A late renewal may have acquired the lease
    // again after somebody else held it in between.
    let lost_before = || match before {
        Err(lost @ Ending::Lost(_)) => Err(hold.error(lost, true)),
        Err(Ending::HeldTooLong(_) | Ending::ShutDown) | Ok(()) => Ok(()),
    };
    match answer {
        Ok(Released::Released) => {
            let was_lost = matches!(before, Err(Ending::Lost(_)));
            telemetry::released(hold.labels(), hold.token, was_lost, || hold.age());
            hold.untrack();
            lost_before()
        }
        Ok(Released::NotHeld) => {
            let ending = match before {
                // Ending the hold had already released it.
                Err(ended) if hold.backend().capabilities.session => ended,
                Err(Ending::HeldTooLong(_) | Ending::ShutDown) | Ok(()) => {
                    telemetry::lost(hold.labels(), hold.token, hold.age(), LostReason::NotHeld);
                    Ending::Lost(LostReason::NotHeld)
                }
                Err(lost) => lost,
            };
            telemetry::released(hold.labels(), hold.token, true, || hold.age());
            hold.untrack();
            Err(hold.error(ending, true))
        }
        Err(_) => {
            // Lets the next task in the local queue ask: the backend decides.
            drop(turn);
            spawn(Arc::clone(hold), None, true);
            lost_before()
        }
    }
}

/// A hold whose tasks have not stopped yet. If it is dropped, it is released in the background.
struct Unfinished<'a>(Option<&'a Arc<Hold>>);

impl Unfinished<'_> {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(hold) = self.0 {
            release_later(Arc::clone(hold));
        }
    }
}

/// Releases the lease in the background.
pub(crate) fn release_later(hold: Arc<Hold>) {
    if !hold.has_children() {
        return release_stopped_later(hold);
    }
    hold.cancel_children();
    // Where the lease is renewed: once that runtime is gone, the hold has ended, and its tasks with it.
    let runtime = hold.watchdog.runtime.clone();
    let tracker = hold.engine.background.clone();
    let unfinished = StoppingLater(Some(hold));
    tracker.spawn_on(unfinished.stop_and_release(), &runtime);
}

/// A hold that is released in the background after its tasks have stopped. If the runtime where they are awaited is gone,
/// it is released at once.
struct StoppingLater(Option<Arc<Hold>>);

impl StoppingLater {
    async fn stop_and_release(self) {
        if let Some(hold) = &self.0 {
            hold.stop_children().await;
        }
    }
}

impl Drop for StoppingLater {
    fn drop(&mut self) {
        if let Some(hold) = self.0.take() {
            release_stopped_later(hold);
        }
    }
}

/// The same for a hold under which no task runs.
fn release_stopped_later(hold: Arc<Hold>) {
    if let Some(mut closing) = close_or_pass(&hold) {
        spawn(hold, closing.turn.take(), false);
    }
}

/// A release in progress. If it is dropped unfinished, it continues in the background.
struct Releasing<'a> {
    /// `None` once there is an answer.
    hold: Option<&'a Arc<Hold>>,
    turn: Option<Turn>,
    tried: bool,
}

impl Releasing<'_> {
    async fn first_try(
        &mut self,
        hold: &Arc<Hold>,
        closing: &Closing,
    ) -> Result<Released, BackendError> {
        let mut wait_left = RELEASE_TIMEOUT.min(hold.claim.ttl);
        let release = if closing.is_renewing {
            let began = Instant::now();
            hold.renewal_finished(wait_left / 2).await;
            wait_left = wait_left.saturating_sub(began.elapsed());
            hold.release_now()
        } else {
            hold.release_at_once(closing)
        };
        self.tried = true;
        ReleaseTask::of(hold).try_once(release, wait_left).await
    }
}

impl Drop for Releasing<'_> {
    fn drop(&mut self) {
        if let Some(hold) = self.hold {
            spawn(Arc::clone(hold), self.turn.take(), self.tried);
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
        Self { backend: hold.backend(), claim: &hold.claim, how: How::Hold(hold) }
    }

    /// How to release it now.
    fn release(&self) -> Release {
        match self.how {
            How::Hold(hold) => hold.release_now(),
            How::Acquire { late_acquire } => Release { keep_for: None, late_acquire },
        }
    }

    async fn try_once(
        &self,
        release: Release,
        wait_left: Duration,
    ) -> Result<Released, BackendError> {
        let answer = self.ask(release, wait_left).await;
        if let Err(error) = &answer {
            self.backend.outages.failed(self.labels(), Operation::Release, error);
        }
        answer
    }

    fn labels(&self) -> Labels<'_> {
        match self.how {
            How::Hold(hold) => hold.labels(),
            How::Acquire { .. } => self.backend.labels("", &self.claim.key),
        }
    }

    async fn ask(&self, release: Release, wait_left: Duration) -> Result<Released, BackendError> {
        // A panic of the backend counts as no answer, and must not reach the caller.
        let call = AssertUnwindSafe(|| self.backend.store.release(self.claim, release));
        let Ok(answer) = catch_unwind(call) else { return Err(self.failed("panicked in")) };
        if answer.is_ready() {
            return answer.await;
        }
        let answer = AssertUnwindSafe(answer).catch_unwind();
        match timer::timeout(wait_left, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_panic)) => Err(self.failed("panicked in")),
            Err(_) => Err(self.failed("did not answer in time to")),
        }
    }

    fn failed(&self, how: &str) -> BackendError {
        BackendError::transient(format!("backend `{}` {how} a release", self.backend.name))
    }

    /// How long to retry. A lease ends by itself. A queue position does not, and a late acquire has to be refused
    /// whenever the store executes it.
    fn limit(&self) -> Duration {
        let ttl = self.claim.ttl;
        match self.how {
            _ if self.backend.capabilities.session => ttl.max(SESSION_OUTAGE),
            How::Hold(_) if !self.release().late_acquire => ttl,
            How::Hold(_) | How::Acquire { .. } => ttl + PAUSED_SERVER_MARGIN,
        }
    }

    /// Retries until the backend answers or the [`limit`](Self::limit) has passed. The returned flag is true if the answer
    /// came after a failed attempt. The turn in the local queue is passed on after the first attempt in
    /// any case, because the backend decides who is next.
    async fn until_answered(&self, turn: Option<Turn>) -> Option<(Released, bool)> {
        let began = Instant::now();
        let wait_left = RELEASE_TIMEOUT.min(self.claim.ttl);
        let mut pauses = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        let first = self.try_once(self.release(), wait_left).await;
        drop(turn);
        if let Ok(released) = first {
            return Some((released, false));
        }
        // A renewal that was in flight may put the claim in doubt meanwhile.
        while began.elapsed() < self.limit() {
            timer::sleep(pauses.pause()).await;
            if let Ok(released) = self.try_once(self.release(), wait_left).await {
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
            let Closing { before, turn: still_had, is_renewing, .. } = hold.close();
            let (ended_before, turn) = (before.is_err(), turn.or(still_had));
            let mut was_lost = matches!(before, Err(Ending::Lost(_)));
            if is_renewing {
                hold.renewal_finished(RELEASE_TIMEOUT / 2).await;
            }
            let answer = ReleaseTask::of(&hold).until_answered(turn).await;
            match answer {
                Some((Released::NotHeld, repeated)) if !(tried || repeated || ended_before) => {
                    was_lost = true;
                    telemetry::lost(hold.labels(), hold.token, hold.age(), LostReason::NotHeld);
                }
                Some(_) => {}
                None => telemetry::release_given_up(hold.labels()),
            }
            telemetry::released(hold.labels(), hold.token, was_lost, || hold.age());
            hold.untrack();
        },
        &runtime,
    );
}

/// Releases the lease of a closed hold that was on its way to another task. With the turn, the next task asks when it is
/// released. A shutdown waits for it.
pub(super) fn release_passed(hold: &Arc<Hold>, turn: Option<Turn>) {
    hold.engine.contended.note_release(hold.backend().index, &hold.claim.key);
    let runtime = Handle::try_current().unwrap_or_else(|_| hold.watchdog.runtime.clone());
    let tracker = hold.engine.background.clone();
    let hold = Arc::clone(hold);
    tracker.spawn_on(
        async move {
            let answer = ReleaseTask::of(&hold).until_answered(turn).await;
            if answer.is_none() {
                telemetry::release_given_up(hold.labels());
            }
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
            let answer = task.until_answered(turn).await;
            if answer.is_none() {
                let labels = backend.labels("", &claim.key);
                telemetry::abandon_given_up(labels, backend.store.kind());
            }
        },
        &runtime,
    );
}
