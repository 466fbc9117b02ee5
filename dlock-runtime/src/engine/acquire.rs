//! Taking one lease: queue up locally, then ask the backend until it grants or time is up.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::hold::{Hold, HoldLimits};
use super::local_queue::{Joined, Known, Turn};
use super::release::{Abandoned, abandon_later};
use super::request::Request;
use super::telemetry;
use super::{Engine, NamedBackend};
use crate::backend::{Answer, Attempt, Backend, Claim, Mode, Watch};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::error::{BackendError, HeldBy, LockError};
use crate::options::Wait;
use crate::token::FencingToken;

/// One request is given at least so long to be answered, however short the `wait`: a `wait` bounds
/// the waiting for a holder, and `wait = "0s"` must still hear the answer to its one try.
const LEAST_ANSWER_TIME: Duration = Duration::from_secs(1);

/// How often a waiter looks although nobody told it to: a safety net where the backend pushes.
const SAFETY_NET: Duration = Duration::from_secs(1);

/// Until when a call waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    began: Instant,
    limit: Option<Duration>,
}

impl Deadline {
    pub(super) fn new(wait: Wait) -> Self {
        let limit = match wait {
            Wait::UpTo(limit) => Some(limit),
            Wait::Forever => None,
        };
        Self { began: Instant::now(), limit }
    }

    pub(super) fn waited(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.waited() >= limit)
    }

    fn no_waiting(&self) -> bool {
        self.limit == Some(Duration::ZERO)
    }

    /// How much longer the caller waits.
    pub(super) fn left(&self) -> Duration {
        self.limit.map_or(Duration::MAX, |limit| limit.saturating_sub(self.waited()))
    }

    /// Is there time enough to wait for an answer and then for a holder?
    fn is_long(&self) -> bool {
        self.limit.is_none_or(|limit| limit >= LEAST_ANSWER_TIME)
    }

    fn instant(&self) -> Option<Instant> {
        self.limit.and_then(|limit| self.began.checked_add(limit))
    }

    /// Until when a request that is sent now may be answered.
    fn answer_by(&self) -> Option<Instant> {
        self.instant().map(|instant| instant.max(Instant::now() + LEAST_ANSWER_TIME))
    }

    /// Awaits the future until the deadline; `None` when that came first.
    pub(super) async fn bound<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        match self.instant() {
            Some(instant) => tokio::time::timeout_at(instant, future).await.ok(),
            None => Some(future.await),
        }
    }

    pub(super) fn busy(&self, request: &Request, holder: HeldBy) -> LockError {
        LockError::Busy { key: request.key.clone(), waited: self.waited(), holder }
    }
}

/// Takes the lease.
///
/// Cancel safe: a request whose answer is not awaited any more is undone in the background, and the
/// place in the local queue passes to the next task.
pub(super) async fn acquire(
    engine: &Arc<Engine>,
    request: &Request,
) -> Result<Arc<Hold>, LockError> {
    let runtime = Handle::try_current().map_err(|_| LockError::NoRuntime)?;
    let deadline = Deadline::new(request.wait);
    let place = line_up(engine, request, &deadline).await?;
    let mut attempts = Acquire::new(engine, request, runtime, place);
    let granted = attempts.until_granted(&deadline).await?;
    Ok(attempts.into_hold(granted))
}

/// Waits for the place in front among this process's tasks. One that wants to be served in the order of
/// all processes has no place here: it stands in the store's own queue.
pub(super) async fn line_up(
    engine: &Engine,
    request: &Request,
    deadline: &Deadline,
) -> Result<Option<Turn>, LockError> {
    let index = request.backend.index;
    if request.fair {
        return Ok(None);
    }
    if deadline.no_waiting() && request.mode != Mode::Exclusive {
        // The one in front may be about to share the key.
        return Ok(engine.queues.try_enter(index, &request.key));
    }
    let mut turn = match engine.queues.enter(index, &request.key) {
        Joined::Front(place) => return Ok(Some(place)),
        Joined::Behind(turn) => turn,
    };
    if deadline.no_waiting() {
        // Not even for the millisecond that a timer takes.
        return behind_until_known(engine, request, deadline, turn).await;
    }
    match deadline.bound(&mut turn).await {
        Some(Ok(place)) => Ok(Some(place)),
        // The sender is dropped only together with the queue, and that only when it is empty.
        Some(Err(_)) => Err(deadline.busy(request, HeldBy::ThisProcess)),
        None => behind_until_known(engine, request, deadline, turn).await,
    }
}

/// The caller's time is over before its turn came. It is told that the lock is busy only if that is known: a
/// store that failed, or has not answered, is a failure for those behind as it is for the one in front.
async fn behind_until_known(
    engine: &Engine,
    request: &Request,
    deadline: &Deadline,
    mut turn: oneshot::Receiver<Turn>,
) -> Result<Option<Turn>, LockError> {
    let index = request.backend.index;
    let until = Instant::now() + LEAST_ANSWER_TIME;
    loop {
        let anew = engine.queues.heard_anew(index, &request.key);
        let anew = anew.notified();
        let now = Instant::now();
        let too_long_ago = now.checked_sub(LEAST_ANSWER_TIME).unwrap_or(now);
        let limit = match engine.queues.known(index, &request.key, too_long_ago) {
            Known::Busy => return Err(deadline.busy(request, HeldBy::ThisProcess)),
            Known::Failed(error) => return Err(failed(request, error)),
            Known::Asked(since) => until.min(since + LEAST_ANSWER_TIME),
            // The one in front stands in the store's queue, and nobody knows whether anybody holds the key: the
            // store is asked past it.
            Known::Nothing if request.backend.capabilities.queue => return Ok(None),
            Known::Nothing => until,
        };
        if now >= limit {
            return Err(failed(request, unanswered(&request.backend)));
        }
        tokio::select! {
            biased;
            place = &mut turn => {
                let place = place.map_err(|_| deadline.busy(request, HeldBy::ThisProcess))?;
                return Ok(Some(place));
            }
            () = anew => {}
            () = tokio::time::sleep_until(limit) => {}
        }
    }
}

/// The tries of one acquire. While a request of it may be executed without anybody knowing,
/// dropping this undoes it in the background.
struct Acquire<'a> {
    engine: &'a Arc<Engine>,
    request: &'a Request,
    runtime: Handle,
    claim: Claim,
    /// `None` once it has passed to the hold or to the background.
    place: Option<Turn>,
    /// A request was sent whose answer is not known yet.
    in_flight: bool,
    /// An earlier request may still be executed: it failed without saying whether it was, or was sent twice.
    in_doubt: bool,
    /// The claim has a place in the store's queue.
    queued: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Granted {
    pub(super) since: Moment,
    pub(super) token: FencingToken,
    pub(super) validity: Duration,
}

impl<'a> Acquire<'a> {
    fn new(
        engine: &'a Arc<Engine>,
        request: &'a Request,
        runtime: Handle,
        place: Option<Turn>,
    ) -> Self {
        Self {
            engine,
            request,
            runtime,
            claim: request.claim(),
            place,
            in_flight: false,
            in_doubt: false,
            queued: false,
        }
    }

    async fn until_granted(&mut self, deadline: &Deadline) -> Result<Granted, LockError> {
        // A short wait begins with a try, which is answered however short the wait is.
        let queue = self.request.backend.capabilities.queue;
        let mut in_turn = queue && deadline.is_long();
        let mut watch: Option<Box<dyn Watch>> = None;
        let [mut failures, mut polls] = backoffs();
        loop {
            let mut since = Moment::now();
            let in_its_turn =
                if in_turn { self.attempt_in_turn(since, deadline).await } else { None };
            let attempt = if let Some(answer) = in_its_turn {
                answer
            } else {
                // Its turn did not come within the wait: is the key busy, or does the store not answer?
                in_turn = false;
                since = Moment::now();
                self.attempt(since, deadline).await
            };
            match attempt {
                Ok(Attempt::Granted { token, validity, .. }) if since.elapsed() < validity => {
                    return Ok(Granted { since, token, validity });
                }
                // Granted too late to be of use: it is not proved any more. Undo it, ask afresh.
                Ok(Attempt::Granted { .. }) => {
                    self.start_over();
                    if deadline.is_over() {
                        return Err(failed(self.request, too_late(&self.request.backend)));
                    }
                    deadline.bound(tokio::time::sleep(failures.pause())).await;
                }
                Ok(Attempt::Busy { .. }) if deadline.is_over() => {
                    return Err(deadline.busy(self.request, HeldBy::Elsewhere));
                }
                Ok(Attempt::Busy { .. }) if queue => in_turn = true,
                Ok(Attempt::Busy { expires_in, queued, .. }) => {
                    if watch.is_none() {
                        // Who stands in a queue of the store has to show itself in time.
                        watch =
                            watch_key(self.request, deadline, expires_in.filter(|_| queued)).await;
                        if watch.is_some() {
                            // A release before the watch stood is not missed: look once more.
                            continue;
                        }
                    }
                    let pause =
                        pause(&self.request.backend, &mut polls, watch.is_some(), expires_in);
                    deadline.bound(changed_within(watch.as_mut(), pause)).await;
                }
                Err(error) if error.is_transient() && !deadline.is_over() => {
                    telemetry::acquire_failed(
                        self.request.labels(),
                        &self.request.backend.failures,
                        &error,
                    );
                    // Failures may have broken the watch as well; it is made anew.
                    watch = None;
                    deadline.bound(tokio::time::sleep(failures.pause())).await;
                    if deadline.is_over() {
                        return Err(failed(self.request, error));
                    }
                }
                Err(error) => return Err(failed(self.request, error)),
            }
        }
    }

    /// Sends one request and notes what is known of it at every moment.
    async fn attempt(
        &mut self,
        since: Moment,
        deadline: &Deadline,
    ) -> Result<Attempt, BackendError> {
        let registered = &*self.request.backend;
        self.claim.wait_left = deadline.left();
        // Where waiters stand in line it stays what the store knows it by.
        if !registered.capabilities.queue {
            self.claim.client_info.restart();
        }
        let answer = registered.store.try_acquire(&self.claim);
        self.in_flight = !answer.is_ready();
        if let (true, Some(place)) = (self.in_flight, &self.place) {
            place.asks(since.instant(), false);
        }
        let answer = answered(registered, answer, deadline).await;
        self.in_flight = false;
        self.pass_on(&answer);
        match &answer {
            Ok(attempt) => {
                self.queued = attempt.is_queued();
                self.in_doubt |= attempt.in_doubt();
                compare_permits(self.engine, self.request, attempt.other_permits());
            }
            Err(error) => self.in_doubt |= error.may_have_been_sent(),
        }
        answer
    }

    /// Takes a place in the store's own queue; `None` when the time is over before its turn.
    async fn attempt_in_turn(
        &mut self,
        since: Moment,
        deadline: &Deadline,
    ) -> Option<Result<Attempt, BackendError>> {
        self.in_flight = true;
        if let Some(place) = &self.place {
            place.asks(since.instant(), true);
        }
        let turn = self.request.backend.store.acquire_queued(&self.claim);
        let answer = deadline.bound(turn).await;
        self.in_flight = false;
        // Unanswered, it still stands in the queue.
        self.in_doubt |= match &answer {
            Some(Ok(attempt)) => {
                compare_permits(self.engine, self.request, attempt.other_permits());
                attempt.in_doubt()
            }
            Some(Err(error)) => error.may_have_been_sent(),
            None => true,
        };
        if let Some(answer) = &answer {
            self.pass_on(answer);
        }
        answer
    }

    /// Those behind in the local queue learn what this one learns.
    fn pass_on(&self, answer: &Result<Attempt, BackendError>) {
        if let Some(place) = &self.place {
            place.hears(answer.as_ref().map(drop).map_err(Clone::clone));
        }
    }

    fn start_over(&mut self) {
        let stale = std::mem::replace(&mut self.claim, self.request.claim());
        self.in_doubt = false;
        let abandoned = Abandoned { claim: stale, late_acquire: true };
        abandon_later(self.engine, &self.request.backend, abandoned, &self.runtime, None);
    }

    /// An exclusive holder keeps the place in front until it releases the key; of those who share it the next one
    /// may ask at once.
    fn into_hold(mut self, granted: Granted) -> Arc<Hold> {
        let place = self.place.take().filter(|_| self.request.mode == Mode::Exclusive);
        let in_doubt = std::mem::take(&mut self.in_doubt);
        self.queued = false;
        let claim = Claim { token: Some(granted.token), ..self.claim.clone() };
        hold(self.engine, self.request, claim, granted, in_doubt, place, &self.runtime)
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let late_acquire = self.in_flight || self.in_doubt;
        if late_acquire || self.queued {
            let abandoned = Abandoned { claim: self.claim.clone(), late_acquire };
            let place = self.place.take();
            abandon_later(self.engine, &self.request.backend, abandoned, &self.runtime, place);
        }
    }
}

/// The hold that a grant begins.
pub(super) fn hold(
    engine: &Arc<Engine>,
    request: &Request,
    claim: Claim,
    granted: Granted,
    in_doubt: bool,
    place: Option<Turn>,
    runtime: &Handle,
) -> Arc<Hold> {
    let watchdog = engine.watchdogs.of(runtime);
    let terms =
        HoldLimits { renew: request.renew, max_hold: request.max_hold, min_hold: request.min_hold };
    let hold = Arc::new(Hold::new(
        Arc::clone(engine),
        Arc::clone(&request.backend),
        claim,
        granted.token,
        request.template,
        granted.since,
        granted.validity,
        terms,
        in_doubt,
        place,
        runtime.clone(),
        watchdog,
    ));
    hold.watchdog.watch_over(&hold);
    hold
}

/// Each counts by its own number; that there are two of them somebody should hear of.
pub(super) fn compare_permits(engine: &Engine, request: &Request, other: Option<NonZeroU32>) {
    if let Some(other) = other
        && engine.disagreements.note(request.backend.index, request.template)
    {
        telemetry::permits_disagree(request.labels(), request.mode.max_holders(), other);
    }
}

pub(super) async fn watch_key(
    request: &Request,
    deadline: &Deadline,
    limit: Option<Duration>,
) -> Option<Box<dyn Watch>> {
    let watching = request.backend.store.watch(&request.key);
    let watching = async {
        match limit {
            Some(limit) => tokio::time::timeout(limit, watching).await.ok(),
            None => Some(watching.await),
        }
    };
    match deadline.bound(watching).await?? {
        Ok(watch) => Some(watch),
        Err(error) => {
            telemetry::watch_failed(request.labels(), &request.backend.failures, &error);
            None
        }
    }
}

/// How long to sleep if nothing changes: until the present lease would end, a poll's pause, or the safety
/// net, whichever is first.
pub(super) fn pause(
    backend: &NamedBackend,
    polls: &mut Backoff,
    watched: bool,
    expires_in: Option<Duration>,
) -> Duration {
    let pushed = watched && backend.capabilities.push;
    let net =
        if pushed { SAFETY_NET.mul_f64(rand::random_range(0.5..=1.0)) } else { polls.pause() };
    // A little later than the hint: at its very millisecond the lease may still stand.
    expires_in.map_or(net, |left| net.min(left + Duration::from_millis(1)))
}

pub(super) fn failed(request: &Request, source: BackendError) -> LockError {
    LockError::Backend { key: request.key.clone(), source }
}

/// The pauses after failures, and those between looks where nobody tells.
pub(super) fn backoffs() -> [Backoff; 2] {
    [
        Backoff::new(Duration::from_millis(20), Duration::from_secs(1)),
        Backoff::new(Duration::from_millis(4), SAFETY_NET / 4),
    ]
}

/// Awaits an answer for as long as it is of use.
pub(super) async fn answered<T: Unpin>(
    backend: &NamedBackend,
    answer: Answer<'_, Result<T, BackendError>>,
    deadline: &Deadline,
) -> Result<T, BackendError> {
    let limit = if answer.is_ready() { None } else { deadline.answer_by() };
    let Some(limit) = limit else { return answer.await };
    tokio::time::timeout_at(limit, answer).await.unwrap_or_else(|_| Err(unanswered(backend)))
}

fn unanswered(backend: &NamedBackend) -> BackendError {
    BackendError::transient(format!("backend `{}` did not answer in time", backend.name))
}

pub(super) fn too_late(backend: &NamedBackend) -> BackendError {
    BackendError::transient(format!(
        "backend `{}` granted the lock, but its answer came after the lease had ended; use a longer ttl",
        backend.name
    ))
}

/// Resolves at a change, or after `pause` without one.
pub(super) async fn changed_within(watch: Option<&mut Box<dyn Watch>>, pause: Duration) {
    let Some(watch) = watch else {
        return tokio::time::sleep(pause).await;
    };
    let mut changed = watch.changed();
    let mut sleep = std::pin::pin!(tokio::time::sleep(pause));
    std::future::poll_fn(|cx| {
        if std::pin::Pin::new(&mut changed).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        sleep.as_mut().poll(cx)
    })
    .await;
}
