//! Taking several leases in one step, where the store can: line up locally for each key, then ask until all are
//! granted or time is up.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::Engine;
use super::acquire::{
    Deadline, Granted, answered, backoffs, changed_within, compare_permits, failed, hold, line_up,
    pause, too_late, watch_key,
};
use super::hold::Hold;
use super::local_queue::Turn;
use super::release::{Abandoned, abandon_later};
use super::request::Request;
use super::telemetry;
use crate::backend::{Backend, Claim, Mode, SetAttempt, Watch};
use crate::clock::Moment;
use crate::error::{BackendError, HeldBy, LockError};
use crate::token::FencingToken;

/// Takes the leases, which are wanted of one backend, in the order of their keys.
///
/// Cancel safe: a request whose answer is not awaited any more is undone in the background, and the places in
/// the local queues pass to the next tasks.
pub(super) async fn acquire_set(
    engine: &Arc<Engine>,
    requests: &[Request],
) -> Result<Vec<Arc<Hold>>, LockError> {
    let runtime = Handle::try_current().map_err(|_| LockError::NoRuntime)?;
    let deadline = Deadline::new(requests[0].wait);
    let mut attempts = AcquireSet::new(engine, requests, runtime);
    let granted = attempts.until_granted(&deadline).await?;
    Ok(attempts.into_holds(granted))
}

/// The tries of one acquire of several keys. While a request of it may be executed without anybody knowing,
/// dropping this undoes it in the background.
struct AcquireSet<'a> {
    engine: &'a Arc<Engine>,
    requests: &'a [Request],
    runtime: Handle,
    claims: Vec<Claim>,
    /// In front of the local queue of the key that was found busy last. The other keys are free for other tasks of
    /// this process, so that no two tasks wait for each other: whether all are free the store decides.
    place: Option<(usize, Turn)>,
    /// A request was sent whose answer is not known yet.
    in_flight: bool,
    /// An earlier request may still be executed: it failed without saying whether it was, or was sent twice.
    in_doubt: bool,
    /// A claim has a place in the store's queue.
    queued: bool,
}

struct AllGranted {
    since: Moment,
    tokens: Vec<FencingToken>,
    validity: Duration,
}

impl<'a> AcquireSet<'a> {
    fn new(engine: &'a Arc<Engine>, requests: &'a [Request], runtime: Handle) -> Self {
        let claims = requests.iter().map(Request::claim).collect();
        let (in_flight, in_doubt, queued) = (false, false, false);
        Self { engine, requests, runtime, claims, place: None, in_flight, in_doubt, queued }
    }

    async fn until_granted(&mut self, deadline: &Deadline) -> Result<AllGranted, LockError> {
        let backend = &self.requests[0].backend;
        // Of the key that was in the way.
        let mut watched: Option<(usize, Box<dyn Watch>)> = None;
        let [mut failures, mut polls] = backoffs();
        self.line_up_where_occupied(deadline).await?;
        loop {
            let since = Moment::now();
            match self.attempt(since, deadline).await {
                Ok(SetAttempt::Granted { tokens, validity, .. }) if since.elapsed() < validity => {
                    return Ok(AllGranted { since, tokens, validity });
                }
                // Granted too late to be of use: they are not proved any more. Undo it, ask afresh.
                Ok(SetAttempt::Granted { .. }) => {
                    self.start_over();
                    if deadline.is_over() {
                        return Err(failed(&self.requests[0], too_late(backend)));
                    }
                    deadline.bound(tokio::time::sleep(failures.pause())).await;
                }
                Ok(SetAttempt::Busy { at, .. }) if deadline.is_over() => {
                    return Err(deadline.busy(&self.requests[at], HeldBy::Elsewhere));
                }
                Ok(SetAttempt::Busy { at, expires_in, queued, .. }) => {
                    if self.line_up_at(at, deadline).await? {
                        continue;
                    }
                    if watched.as_ref().is_none_or(|(key, _)| *key != at) {
                        // Who stands in a queue of the store has to show itself in time.
                        let limit = expires_in.filter(|_| queued);
                        let watch = watch_key(&self.requests[at], deadline, limit).await;
                        watched = watch.map(|watch| (at, watch));
                        if watched.is_some() {
                            // A release before the watch stood is not missed: look once more.
                            continue;
                        }
                    }
                    let pause = pause(backend, &mut polls, watched.is_some(), expires_in);
                    let watch = watched.as_mut().map(|(_, watch)| watch);
                    deadline.bound(changed_within(watch, pause)).await;
                }
                Err(error) if error.is_transient() && !deadline.is_over() => {
                    telemetry::acquire_failed(self.requests[0].labels(), &backend.failures, &error);
                    // Failures may have broken the watch as well; it is made anew.
                    watched = None;
                    deadline.bound(tokio::time::sleep(failures.pause())).await;
                    if deadline.is_over() {
                        return Err(failed(&self.requests[0], error));
                    }
                }
                Err(error) => return Err(failed(&self.requests[0], error)),
            }
        }
    }

    /// Where other tasks of this process want one of the keys, this lines up behind them before it asks.
    async fn line_up_where_occupied(&mut self, deadline: &Deadline) -> Result<(), LockError> {
        let queues = &self.engine.queues;
        let occupied = self
            .requests
            .iter()
            .position(|request| queues.is_occupied(request.backend.index, &request.key));
        match occupied {
            Some(at) => self.line_up_at(at, deadline).await.map(drop),
            None => Ok(()),
        }
    }

    /// Lines up for the key that is busy, and for no other. True if others were in front: the store is to be asked
    /// again.
    async fn line_up_at(&mut self, at: usize, deadline: &Deadline) -> Result<bool, LockError> {
        if self.place.as_ref().is_some_and(|(front_at, _)| *front_at == at) {
            return Ok(false);
        }
        self.place = None;
        let request = &self.requests[at];
        let waits =
            !request.fair && self.engine.queues.is_occupied(request.backend.index, &request.key);
        self.place = line_up(self.engine, request, deadline).await?.map(|place| (at, place));
        Ok(waits)
    }

    /// Those behind in the local queue learn what this one learns of their key.
    fn pass_on(&self, answer: &Result<SetAttempt, BackendError>) {
        let Some((at, place)) = &self.place else { return };
        match answer {
            Ok(SetAttempt::Busy { at: busy, .. }) if at != busy => {}
            Ok(_) => place.hears(Ok(())),
            Err(error) => place.hears(Err(error.clone())),
        }
    }

    /// Sends one request and notes what is known of it at every moment.
    async fn attempt(
        &mut self,
        since: Moment,
        deadline: &Deadline,
    ) -> Result<SetAttempt, BackendError> {
        let registered = &*self.requests[0].backend;
        for claim in &mut self.claims {
            claim.wait_left = deadline.left();
            claim.client_info.restart();
        }
        let answer = registered.store.try_acquire_set(&self.claims);
        self.in_flight = !answer.is_ready();
        if let (true, Some((_, place))) = (self.in_flight, &self.place) {
            place.asks(since.instant(), false);
        }
        let answer = answered(registered, answer, deadline).await;
        self.in_flight = false;
        self.pass_on(&answer);
        match &answer {
            Ok(attempt) => {
                self.queued = attempt.is_queued();
                self.in_doubt |= attempt.in_doubt();
                compare_permits(self.engine, &self.requests[0], attempt.other_permits());
            }
            Err(error) => self.in_doubt |= error.may_have_been_sent(),
        }
        answer
    }

    fn start_over(&mut self) {
        for (claim, request) in self.claims.iter_mut().zip(self.requests) {
            let stale = std::mem::replace(claim, request.claim());
            let abandoned = Abandoned { claim: stale, late_acquire: true };
            abandon_later(self.engine, &request.backend, abandoned, &self.runtime, None);
        }
        self.in_doubt = false;
    }

    /// An exclusive holder keeps the place in front until it releases the key; of those who share it the next one
    /// may ask at once.
    fn into_holds(mut self, granted: AllGranted) -> Vec<Arc<Hold>> {
        let AllGranted { since, tokens, validity } = granted;
        let in_doubt = std::mem::take(&mut self.in_doubt);
        self.queued = false;
        let mut front = self.place.take();
        let parts = self.requests.iter().zip(&self.claims).zip(tokens).enumerate();
        let holds = parts.map(|(at, ((request, claim), token))| {
            let place = front.take_if(|(front_at, _)| *front_at == at).map(|(_, place)| place);
            // Where another task is in front it hears from the store that the key is busy.
            let place =
                place.or_else(|| self.engine.queues.try_enter(request.backend.index, &request.key));
            if let Some(place) = &place {
                place.hears(Ok(()));
            }
            let claim = Claim { token: Some(token), ..claim.clone() };
            let granted = Granted { since, token, validity };
            let place = place.filter(|_| request.mode == Mode::Exclusive);
            hold(self.engine, request, claim, granted, in_doubt, place, &self.runtime)
        });
        holds.collect()
    }
}

impl Drop for AcquireSet<'_> {
    fn drop(&mut self) {
        let late_acquire = self.in_flight || self.in_doubt;
        if late_acquire || self.queued {
            let mut front = self.place.take();
            for (at, (claim, request)) in self.claims.drain(..).zip(self.requests).enumerate() {
                let place = front.take_if(|(front_at, _)| *front_at == at).map(|(_, place)| place);
                let abandoned = Abandoned { claim, late_acquire };
                abandon_later(self.engine, &request.backend, abandoned, &self.runtime, place);
            }
        }
    }
}
