//! The acquire loop: line up in the local queue, then ask the store until it grants or the wait is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Engine;
use super::contention::{ContendedWait, LocalHolder};
use super::deadline::{Deadline, unanswered};
use super::hold::{self, Hold};
use super::line_up::{Front, line_up, wait_in_line};
use super::local_queue::{KeptWatch, News, Next, Turn};
use super::passing::Allowance;
use super::release::{Abandoned, abandon_later};
use super::request::Request;
use super::telemetry::Operation;
use super::waiting::Waiting;
use super::wanted::{KeySet, OneKey, Outcome, Reply, Tokens, Wanted};
use crate::backend::{Mode, without_grace};
use crate::clock::{self, BootTime, Moment};
use crate::error::{BackendError, HeldBy, LockError};
use crate::timer;

/// How long a call in a store's own queue counts as one that does not wait.
const UNCONTENDED: Duration = Duration::from_millis(10);

/// Acquires one lease.
///
/// Cancel safe: if this future is dropped while a request of it may still be executed, the request is undone in the
/// background, and the turn in the local queue passes to the next task.
pub(super) async fn acquire(
    engine: &Arc<Engine>,
    request: &Request<'_>,
) -> Result<Arc<Hold>, LockError> {
    let runtime = Handle::try_current().map_err(|_| LockError::NoRuntime)?;
    let deadline = Deadline::new(request.wait);
    // Counted from the beginning of the call, the validity is only shorter. After a wait it would be too short.
    let mut contended = None;
    let (front, now, is_contended) =
        match line_up(engine, request, &deadline, request.accepts(&runtime)) {
            Front::Reached(front) => (front, deadline.began(), false),
            Front::Behind(next) => {
                contended = begin_wait(engine, request, deadline.began().instant(), &deadline);
                // Boxed, like all that only a contended call needs: the future of a call that waits for nobody stays
                // small.
                let waiting = Box::pin(wait_in_line(engine, request, &deadline, next));
                let front = match waiting.await? {
                    Some(Next::Lease(lease)) => {
                        match lease.begin(engine, request, &runtime, contended.take()) {
                            Ok(hold) => return Ok(hold),
                            Err(turn) => {
                                let now = clock::instant();
                                contended = begin_wait(engine, request, now, &deadline);
                                turn
                            }
                        }
                    }
                    Some(Next::Turn(turn)) => Some(turn),
                    None => None,
                };
                (front, Moment::now(), true)
            }
        };
    let front = front.map(|turn| (0, turn));
    let mut acquire = Acquire::new(engine, OneKey(request), runtime, front, &now);
    acquire.is_contended = is_contended;
    acquire.contended = contended;
    let granted = acquire.until_granted(&deadline, now).await?;
    let mut hold = None;
    acquire.into_holds(granted, |granted| hold = Some(granted));
    Ok(hold.expect("one key has one hold"))
}

/// Acquires several leases of one backend in one step. The requests are in the order of their keys.
///
/// Cancel safe in the same way as [`acquire`].
pub(super) async fn acquire_set(
    engine: &Arc<Engine>,
    requests: &[Request<'_>],
) -> Result<Vec<Arc<Hold>>, LockError> {
    let runtime = Handle::try_current().map_err(|_| LockError::NoRuntime)?;
    let deadline = Deadline::new(requests[0].wait);
    let mut acquire = Acquire::new(engine, KeySet(requests), runtime, None, &deadline.began());
    acquire.line_up_where_occupied(&deadline).await?;
    let granted = acquire.until_granted(&deadline, Moment::now()).await?;
    let mut holds = Vec::with_capacity(requests.len());
    acquire.into_holds(granted, |hold| holds.push(hold));
    Ok(holds)
}

/// One acquire and all its attempts. If it is dropped while a request may still be executed, it undoes that request
/// in the background.
struct Acquire<'a, W: Wanted> {
    engine: &'a Arc<Engine>,
    wanted: W,
    runtime: Handle,
    /// `None` once they have been granted.
    claims: Option<W::Claims>,
    /// The turn at the front of one key's local queue, with the key's index. Of a set, only the key
    /// that was busy last has a turn. The other keys stay free for other tasks of this process, so that no two tasks
    /// wait for each other.
    front: Option<(usize, Turn)>,
    last: LastRequest,
    /// An earlier request may still be executed: it failed without saying whether it was executed, or it was sent
    /// twice.
    in_doubt: bool,
    /// A claim may have a position in the store's queue.
    queued: bool,
    /// The task had to wait already, so that others may wait behind it.
    is_contended: bool,
    /// What it waits for, for people to see.
    contended: Option<Box<ContendedWait<'a>>>,
}

/// What became of the last request. Before the first one, nothing has to be undone either.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastRequest {
    /// It was sent and has no answer yet.
    InFlight,
    Answered,
    /// The answer was ready without waiting.
    AnsweredAtOnce,
}

/// A grant that was still valid when it arrived.
#[derive(Clone, Copy)]
struct Granted<T> {
    since: Moment,
    tokens: T,
    validity: Duration,
}

type Answer<W> = Result<Outcome<<W as Wanted>::Tokens>, BackendError>;

impl<'a, W: Wanted> Acquire<'a, W> {
    fn new(
        engine: &'a Arc<Engine>,
        wanted: W,
        runtime: Handle,
        front: Option<(usize, Turn)>,
        now: &Moment,
    ) -> Self {
        let claims = Some(wanted.claims(now));
        Self {
            engine,
            wanted,
            runtime,
            claims,
            front,
            last: LastRequest::Answered,
            in_doubt: false,
            queued: false,
            is_contended: false,
            contended: None,
        }
    }

    /// The acquire's first request. It names the backend, and the key in errors that concern no key in particular.
    fn first(&self) -> &Request<'_> {
        &self.wanted.requests()[0]
    }

    /// `since`: a moment before the first request is sent.
    async fn until_granted(
        &mut self,
        deadline: &Deadline,
        mut since: Moment,
    ) -> Result<Granted<W::Tokens>, LockError> {
        // A short wait begins with an attempt outside the store's queue, which gets an answer however short the
        // wait is.
        let mut in_turn = self.wanted.has_queue() && deadline.allows_queueing();
        let mut waiting = Waiting::new();
        if let Some((at, turn)) = self.front.as_ref().filter(|_| self.is_contended)
            && self.first().is_plain()
        {
            waiting.inherit(*at, turn.take_watch(self.runtime.id()));
        }
        loop {
            let mut queued_answer = None;
            if in_turn {
                // Boxed, like all that only some stores need.
                queued_answer = Box::pin(self.queue(since, deadline)).await;
                if queued_answer.is_none() {
                    // The wait ended in the queue. One attempt shows whether the key is busy or the store is down.
                    in_turn = false;
                    since = Moment::now();
                }
            }
            let answer = match queued_answer {
                Some(answer) => answer,
                None => self.attempt(since, deadline).await,
            };
            if let Ok(Outcome::Busy { at, .. }) = &answer {
                self.note_wait(*at, deadline);
            }
            match answer {
                Ok(Outcome::Granted { tokens, validity }) if self.is_in_time(&since, validity) => {
                    self.leave_watch(waiting);
                    return Ok(Granted { since, tokens, validity });
                }
                // Granted too late: the lease may have expired already. Undo it and ask again.
                Ok(Outcome::Granted { .. }) => {
                    self.start_over();
                    if deadline.is_over() {
                        return Err(self.first().granted_too_late());
                    }
                    Box::pin(waiting.back_off(deadline)).await;
                }
                Ok(Outcome::Busy { at, .. }) if deadline.is_over() => {
                    return Err(deadline.busy(&self.wanted.requests()[at], HeldBy::Elsewhere));
                }
                Ok(Outcome::Busy { .. }) if self.wanted.has_queue() => in_turn = true,
                Ok(Outcome::Busy { at, expires_in, queued }) => {
                    if !Box::pin(self.line_up_at(at, deadline)).await? {
                        let request = &self.wanted.requests()[at];
                        // One of a set is refused or granted with the others, so nothing is handed over to it alone.
                        let claim = match self.claims.as_ref().map(AsRef::as_ref) {
                            Some([claim]) => Some(claim),
                            _ => None,
                        };
                        let change =
                            waiting.for_change(request, at, claim, expires_in, queued, deadline);
                        Box::pin(change).await;
                    }
                }
                Err(error) if error.is_transient() && !deadline.is_over() => {
                    Box::pin(waiting.after_failure(deadline)).await;
                    if deadline.is_over() {
                        return Err(self.first().failed(error));
                    }
                }
                Err(error) => return Err(self.first().failed(error)),
            }
            since = Moment::now();
        }
    }

    /// Notes which key the call waits for.
    fn note_wait(&mut self, at: usize, deadline: &Deadline) {
        let request = &self.wanted.requests()[at];
        let began = match &self.contended {
            Some(contended) if contended.is_for(&request.key) => return,
            Some(_) => clock::instant(),
            None => deadline.began().instant(),
        };
        // The wait for another key ends first.
        self.contended = None;
        self.contended = begin_wait(self.engine, request, began, deadline);
    }

    /// Leaves the watch to the next task of this process, which then need not set up its own. A store with a queue
    /// notifies only whose turn it is, so that the watch has nothing to tell of this task's own release. The watch may be
    /// for plain claims alone, so others neither leave nor take one.
    fn leave_watch(&self, waiting: Waiting) {
        if let Some((at, turn)) = self.front.as_ref().filter(|_| self.queued)
            && self.first().is_plain()
            && let Some(watch) = waiting.into_watch(*at)
        {
            turn.leave_watch(KeptWatch::new(watch, self.runtime.id()));
        }
    }

    /// Whether a grant is still valid.
    fn is_in_time(&self, since: &Moment, validity: Duration) -> bool {
        // One clock is enough for an answer that was ready: a paused clock of tokio has not moved meanwhile.
        let at_once = self.last == LastRequest::AnsweredAtOnce
            && BootTime::now().since(since.boot()) < validity;
        at_once || since.elapsed() < validity
    }

    /// Sends one request, and keeps track of whether it may still be executed.
    async fn attempt(&mut self, since: Moment, deadline: &Deadline) -> Answer<W> {
        let backend = &**self.wanted.requests()[0].backend;
        // Where it was granted, there is no other attempt.
        let Some(claims) = &mut self.claims else { return Err(unanswered(backend)) };
        let (wait_left, now) = (deadline.left_at(&since), since.time_of_day());
        let waiters = match &self.front {
            // An earlier request may have been executed, and have reserved another block.
            Some((_, turn)) if self.is_contended && !self.in_doubt => turn.waiters(),
            _ => 0,
        };
        let token_block = self.wanted.token_block(waiters);
        for claim in claims.as_mut() {
            claim.wait_left = wait_left;
            claim.token_block = token_block;
            // A store with a queue of its own finds the claim there by its client info too, which must not change.
            if !self.wanted.has_queue() {
                claim.client_info.restart(now);
            }
        }
        let answer = W::try_acquire(&*backend.store, claims);
        let at_once = answer.is_ready();
        if !at_once {
            self.last = LastRequest::InFlight;
            if let Some((_, turn)) = &self.front {
                turn.note_request(since.instant(), false);
            }
        }
        let answer = deadline.answer(backend, answer).await;
        self.last = if at_once { LastRequest::AnsweredAtOnce } else { LastRequest::Answered };
        self.take_note(answer)
    }

    /// Waits in the store's own queue. `None`: the wait ended first.
    async fn queue(&mut self, since: Moment, deadline: &Deadline) -> Option<Answer<W>> {
        self.last = LastRequest::InFlight;
        if let Some((_, turn)) = &self.front {
            turn.note_request(since.instant(), true);
        }
        let wanted = self.wanted;
        let request = &wanted.requests()[0];
        let claims = self.claims.as_mut()?;
        claims.as_mut().iter_mut().for_each(|claim| claim.token_block = 1);
        let contended = &mut self.contended;
        let answer = {
            let asked = W::acquire_queued(&*request.backend.store, claims);
            let mut asked = Box::pin(deadline.bound(asked));
            if let Ok(answer) = timer::timeout(UNCONTENDED, asked.as_mut()).await {
                answer
            } else {
                let began = since.instant();
                let wait = || Box::new(ContendedWait::begin(self.engine, request, began, None));
                contended.get_or_insert_with(wait);
                asked.await
            }
        };
        self.last = LastRequest::Answered;
        // Without an answer, the claim is still in the queue.
        self.in_doubt |= answer.is_none();
        answer.map(|answer| self.take_note(answer))
    }

    /// Notes whether the request may still be executed, and passes the answer on to the tasks behind this one.
    fn take_note(&mut self, answer: Result<W::Attempt, BackendError>) -> Answer<W> {
        self.is_contended = true;
        let (answer, other_permits) = match answer.map(Into::into) {
            Ok(Reply { mut outcome, in_doubt, other_permits }) => {
                // The store was asked for the ttl and the grace.
                if let Outcome::Granted { validity, .. } = &mut outcome {
                    let Request { ttl, grace, .. } = *self.first();
                    if !grace.is_zero() {
                        *validity = without_grace(*validity, ttl, grace);
                    }
                }
                self.in_doubt |= in_doubt;
                // Of a set, an answer concerns the key that is busy now. Another one may have a queue position since before.
                self.queued |= outcome.is_queued();
                (Ok(outcome), other_permits)
            }
            Err(error) => {
                self.in_doubt |= error.may_have_been_sent();
                (Err(error), None)
            }
        };
        self.inform_those_behind(&answer);
        // Last, because this calls the application's subscriber, which may panic.
        let request = self.first();
        match &answer {
            Ok(_) => request.backend.outages.answered(&request.backend.name),
            Err(error) => {
                self.engine.contended.note_failure(request.backend.index, &request.key);
                request.backend.outages.failed(request.labels(), Operation::Acquire, error);
            }
        }
        request.compare_permits(self.engine, other_permits);
        answer
    }

    /// The tasks behind in the local queue learn what this one learns of their key.
    fn inform_those_behind(&self, answer: &Answer<W>) {
        let Some((front, turn)) = &self.front else { return };
        match answer {
            Ok(Outcome::Busy { at, .. }) if at != front => {}
            Ok(Outcome::Busy { .. }) => {
                turn.note_answer(News::Busy);
                // Of this process, only the task at the front could hold the key.
                let request = &self.wanted.requests()[*front];
                self.engine.contended.note_release(request.backend.index, &request.key);
            }
            Ok(Outcome::Granted { tokens, .. }) => {
                let (request, tokens) = (&self.wanted.requests()[*front], tokens.as_ref()[*front]);
                turn.note_answer(News::Held(holder(request, tokens)));
            }
            Err(error) => turn.note_answer(News::Failed(error.clone())),
        }
    }

    /// Lines up behind other tasks of this process that want one of the keys.
    async fn line_up_where_occupied(&mut self, deadline: &Deadline) -> Result<(), LockError> {
        let queues = &self.engine.queues;
        let occupied =
            |request: &Request<'_>| queues.is_occupied(request.backend.index, &request.key);
        match self.wanted.requests().iter().position(occupied) {
            Some(at) => self.line_up_at(at, deadline).await.map(drop),
            None => Ok(()),
        }
    }

    /// Lines up for the busy key, and gives up the turn at any other. True if this task had to wait for others: then
    /// the store's answer is out of date.
    async fn line_up_at(&mut self, at: usize, deadline: &Deadline) -> Result<bool, LockError> {
        if self.front.as_ref().is_some_and(|(front, _)| *front == at) {
            return Ok(false);
        }
        self.front = None;
        let wanted = self.wanted;
        let request = &wanted.requests()[at];
        let index = request.backend.index;
        let waits = !request.options.fair && self.engine.queues.is_occupied(index, &request.key);
        let front = match line_up(self.engine, request, deadline, None) {
            Front::Reached(front) => front,
            Front::Behind(next) => {
                self.note_wait(at, deadline);
                let next = wait_in_line(self.engine, request, deadline, next).await?;
                next.and_then(Next::into_turn)
            }
        };
        self.front = front.map(|turn| (at, turn));
        Ok(waits)
    }

    /// Gives up the present claims and continues with new owners. What the old owners may hold is released.
    fn start_over(&mut self) {
        self.queued = false;
        let stale = self.claims.replace(self.wanted.claims(&Moment::now()));
        self.in_doubt = false;
        for (claim, request) in stale.into_iter().flatten().zip(self.wanted.requests()) {
            let abandoned = Abandoned { claim, late_acquire: true };
            abandon_later(self.engine, request.backend, abandoned, &self.runtime, None);
        }
    }

    /// Begins a hold for each key.
    fn into_holds(mut self, granted: Granted<W::Tokens>, mut each: impl FnMut(Arc<Hold>)) {
        let Granted { since, tokens, validity } = granted;
        self.contended = None;
        let in_doubt = std::mem::take(&mut self.in_doubt);
        self.queued = false;
        let mut front = self.front.take();
        let requests = self.wanted.requests();
        let watchdog = self.engine.watchdogs.of(&self.runtime);
        let claims = self.claims.take().into_iter().flatten();
        for (at, ((request, mut claim), granted)) in
            requests.iter().zip(claims).zip(tokens).enumerate()
        {
            let Tokens { first, block } = granted;
            claim.token = Some(granted.last());
            let turn = front.take_if(|(front, _)| *front == at).map(|(_, turn)| turn);
            let turn = turn.or_else(|| self.turn_beside(request, granted));
            // An exclusive holder keeps the turn until it releases the key. Where the key is shared, the next
            // task may ask at once.
            let turn = turn.filter(|_| request.options.mode == Mode::Exclusive);
            let allowance = if in_doubt { None } else { Allowance::new(request, block) };
            let granted = hold::Granted {
                claim,
                token: first,
                since,
                proved: since,
                validity,
                in_doubt,
                is_passed: false,
                allowance,
                turn,
            };
            each(Hold::begin(self.engine, request, granted, Arc::clone(&watchdog)));
        }
    }

    /// The turn at another key of a set, if it is free. If it is not, the task that has it finds the key busy in the
    /// store.
    fn turn_beside(&self, request: &Request<'_>, granted: Tokens) -> Option<Turn> {
        if self.wanted.requests().len() == 1 {
            return None;
        }
        let turn = self.engine.queues.try_enter(request.backend.index, &request.key)?;
        turn.note_answer(News::Held(holder(request, granted)));
        Some(turn)
    }
}

/// Begins to count a wait, for people to see.
fn begin_wait<'a>(
    engine: &'a Arc<Engine>,
    request: &Request<'_>,
    began: Instant,
    deadline: &Deadline,
) -> Option<Box<ContendedWait<'a>>> {
    // A call that only asks once does not wait.
    let waits = !deadline.is_immediate();
    waits.then(|| {
        let holder = engine.queues.holder(request.backend.index, &request.key);
        Box::new(ContendedWait::begin(engine, request, began, holder))
    })
}

fn holder(request: &Request<'_>, granted: Tokens) -> LocalHolder {
    LocalHolder { site: request.site(), token: granted.first }
}

impl<W: Wanted> Drop for Acquire<'_, W> {
    fn drop(&mut self) {
        let late_acquire = self.last == LastRequest::InFlight || self.in_doubt;
        if !late_acquire && !self.queued {
            return;
        }
        let mut front = self.front.take();
        let claims = self.claims.take().into_iter().flatten();
        for (at, (claim, request)) in claims.zip(self.wanted.requests()).enumerate() {
            let turn = front.take_if(|(front, _)| *front == at).map(|(_, turn)| turn);
            let abandoned = Abandoned { claim, late_acquire };
            abandon_later(self.engine, request.backend, abandoned, &self.runtime, turn);
        }
    }
}
