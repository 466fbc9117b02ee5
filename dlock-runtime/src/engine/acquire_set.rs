//! Taking several leases in one step, where the store can: line up locally for each key, then ask until all are
//! granted or time is up.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::acquire::{
    Deadline, Granted, answered, backoffs, changed_within, compare_permits, failed, hold, line_up,
    pause, too_late, watch_key,
};
use super::enter::Want;
use super::hold::Hold;
use super::queue::Place;
use super::release::{Abandoned, abandon_later};
use crate::backend::{Backend, Claim, SetAttempt, Sharing, Watch};
use crate::clock::Moment;
use crate::error::{BackendError, LockError, Whereabouts};
use crate::registry::RegistryInner;
use crate::token::FencingToken;

/// Takes the leases, which are wanted of one backend, in the order of their keys.
///
/// Cancel safe: a request whose answer is not awaited any more is undone in the background, and the places in
/// the local queues pass to the next tasks.
pub(super) async fn acquire_set(
    registry: &Arc<RegistryInner>,
    wants: &[Want],
) -> Result<Vec<(Arc<Hold>, Option<Place>)>, LockError> {
    let runtime = Handle::try_current().map_err(|_| LockError::NoRuntime)?;
    let deadline = Deadline::new(wants[0].wait);
    let mut places = Vec::with_capacity(wants.len());
    for want in wants {
        // In the keys' order everywhere, so that no two tasks wait for each other.
        places.push(line_up(registry, want, &deadline).await?);
    }
    let mut attempts = Attempts::new(registry, wants, runtime, places);
    let granted = attempts.until_granted(&deadline).await?;
    Ok(attempts.into_holds(granted))
}

/// The tries of one acquire of several keys. While a request of it may be executed without anybody knowing,
/// dropping this undoes it in the background.
struct Attempts<'a> {
    registry: &'a Arc<RegistryInner>,
    wants: &'a [Want],
    runtime: Handle,
    claims: Vec<Claim>,
    /// Empty once they have passed to the holds or to the background.
    places: Vec<Option<Place>>,
    /// A request was sent whose answer is not known yet.
    in_flight: bool,
    /// An earlier request failed without saying whether it was executed.
    in_doubt: bool,
    /// A claim has a place in the store's queue.
    queued: bool,
}

struct AllGranted {
    since: Moment,
    tokens: Vec<FencingToken>,
    validity: Duration,
}

impl<'a> Attempts<'a> {
    fn new(
        registry: &'a Arc<RegistryInner>,
        wants: &'a [Want],
        runtime: Handle,
        places: Vec<Option<Place>>,
    ) -> Self {
        let claims = wants.iter().map(Want::claim).collect();
        let (in_flight, in_doubt, queued) = (false, false, false);
        Self { registry, wants, runtime, claims, places, in_flight, in_doubt, queued }
    }

    async fn until_granted(&mut self, deadline: &Deadline) -> Result<AllGranted, LockError> {
        let backend = &self.wants[0].backend;
        // Of the key that was in the way.
        let mut watched: Option<(usize, Box<dyn Watch>)> = None;
        let [mut failures, mut polls] = backoffs();
        loop {
            let since = Moment::now();
            match self.attempt(deadline).await {
                Ok(SetAttempt::Granted { tokens, validity, .. }) if since.elapsed() < validity => {
                    return Ok(AllGranted { since, tokens, validity });
                }
                // Granted too late to be of use: they are not proved any more. Undo it, ask afresh.
                Ok(SetAttempt::Granted { .. }) => {
                    self.start_over();
                    if deadline.is_over() {
                        return Err(failed(&self.wants[0], too_late(backend)));
                    }
                    deadline.bound(tokio::time::sleep(failures.pause())).await;
                }
                Ok(SetAttempt::Busy { at, .. }) if deadline.is_over() => {
                    return Err(deadline.busy(&self.wants[at], Whereabouts::Elsewhere));
                }
                Ok(SetAttempt::Busy { at, expires_in, queued, .. }) => {
                    if watched.as_ref().is_none_or(|(key, _)| *key != at) {
                        // Who stands in a queue of the store has to show itself in time.
                        let limit = expires_in.filter(|_| queued);
                        let watch = watch_key(&self.wants[at], deadline, limit).await;
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
                    crate::telemetry::acquire_failed(&self.wants[0], &error);
                    // Failures may have broken the watch as well; it is made anew.
                    watched = None;
                    deadline.bound(tokio::time::sleep(failures.pause())).await;
                    if deadline.is_over() {
                        return Err(failed(&self.wants[0], error));
                    }
                }
                Err(error) => return Err(failed(&self.wants[0], error)),
            }
        }
    }

    /// Sends one request and notes what is known of it at every moment.
    async fn attempt(&mut self, deadline: &Deadline) -> Result<SetAttempt, BackendError> {
        let registered = &*self.wants[0].backend;
        for claim in &mut self.claims {
            claim.patience = deadline.left();
            claim.claimant.restart();
        }
        let answer = registered.store.try_acquire_set(&self.claims);
        self.in_flight = !answer.is_ready();
        let answer = answered(registered, answer, deadline).await;
        self.in_flight = false;
        match &answer {
            Ok(SetAttempt::Busy { queued, other_permits, .. }) => {
                self.queued = *queued;
                compare_permits(self.registry, &self.wants[0], *other_permits);
            }
            Ok(SetAttempt::Granted { other_permits, .. }) => {
                self.queued = false;
                compare_permits(self.registry, &self.wants[0], *other_permits);
            }
            Err(error) => self.in_doubt |= error.may_have_been_sent(),
        }
        answer
    }

    fn start_over(&mut self) {
        for (claim, want) in self.claims.iter_mut().zip(self.wants) {
            let stale = std::mem::replace(claim, want.claim());
            let abandoned = Abandoned { claim: stale, late_acquire: true };
            abandon_later(self.registry, &want.backend, abandoned, &self.runtime, None);
        }
        self.in_doubt = false;
    }

    /// Who holds a key alone keeps the place in front until it is given back; of those who share it the next one
    /// may ask at once.
    fn into_holds(mut self, granted: AllGranted) -> Vec<(Arc<Hold>, Option<Place>)> {
        let AllGranted { since, tokens, validity } = granted;
        let late_acquire = std::mem::take(&mut self.in_doubt);
        let places = std::mem::take(&mut self.places);
        let parts = self.wants.iter().zip(&self.claims).zip(tokens.into_iter().zip(places));
        let holds = parts.map(|((want, claim), (token, place))| {
            let claim = Claim { token: Some(token), ..claim.clone() };
            let granted = Granted { since, token, validity };
            let hold = hold(self.registry, want, claim, granted, late_acquire, &self.runtime);
            (hold, place.filter(|_| want.sharing == Sharing::Exclusive))
        });
        holds.collect()
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        let late_acquire = self.in_flight || self.in_doubt;
        if late_acquire || self.queued {
            let mut places = std::mem::take(&mut self.places).into_iter();
            for (claim, want) in self.claims.drain(..).zip(self.wants) {
                let place = places.next().flatten();
                let abandoned = Abandoned { claim, late_acquire };
                abandon_later(self.registry, &want.backend, abandoned, &self.runtime, place);
            }
        }
    }
}
