//! Waiting in the local queue of a key: of the tasks of one process, only the front asks the store.

use super::Engine;
use super::deadline::{Deadline, MIN_ANSWER_TIME, unanswered};
use super::local_queue::{Joined, Known, Next, Turn};
use super::passing::Passable;
use super::request::Request;
use crate::backend::Mode;
use crate::clock;
use crate::error::{HeldBy, LockError};
use crate::sync::oneshot;
use crate::timer;

/// The result of lining up.
pub(super) enum Front {
    /// The task may ask the store at once. `None`: it asks without a turn.
    Reached(Option<Turn>),
    /// It has to wait for its turn.
    Behind(oneshot::Receiver<Next>),
}

/// Lines up in the local queue. A fair request asks the store without a turn, because it waits in the store's own
/// queue, in the order of all processes. A request that has to wait is passed only a lease that it accepts.
pub(super) fn line_up(
    engine: &Engine,
    request: &Request<'_>,
    deadline: &Deadline,
    accepts: Option<Passable>,
) -> Front {
    let index = request.backend.index;
    if request.options.fair {
        return Front::Reached(None);
    }
    if deadline.is_immediate() && request.options.mode != Mode::Exclusive {
        // The front may be about to share the key, so that being behind it does not mean busy.
        return Front::Reached(engine.queues.try_enter(index, &request.key));
    }
    match engine.queues.enter(index, &request.key, accepts) {
        Joined::Front(turn) => Front::Reached(Some(turn)),
        Joined::Behind(turn) => Front::Behind(turn),
    }
}

/// Waits until this task is at the front of the local queue. `None`: the task asks the store without a turn.
pub(super) async fn wait_in_line(
    engine: &Engine,
    request: &Request<'_>,
    deadline: &Deadline,
    mut next: oneshot::Receiver<Next>,
) -> Result<Option<Next>, LockError> {
    if deadline.is_immediate() {
        // Not even the millisecond that a timer takes.
        return behind_until_known(engine, request, deadline, next).await;
    }
    match deadline.bound(&mut next).await {
        Some(Ok(next)) => Ok(Some(next)),
        // The sender is dropped only with the queue, and the queue only when it is empty.
        Some(Err(_)) => Err(deadline.busy(request, HeldBy::ThisProcess)),
        None => behind_until_known(engine, request, deadline, next).await,
    }
}

/// Finds out what to report to a caller whose time ran out before its turn. `Busy` requires proof that the key is
/// held: if the store failed, or has not answered the front, the callers behind it get that failure too.
async fn behind_until_known(
    engine: &Engine,
    request: &Request<'_>,
    deadline: &Deadline,
    mut next: oneshot::Receiver<Next>,
) -> Result<Option<Next>, LockError> {
    let index = request.backend.index;
    let until = clock::instant() + MIN_ANSWER_TIME;
    let began = deadline.began().instant();
    loop {
        let anew = engine.queues.answer_noted(index, &request.key);
        let anew = anew.notified();
        let now = clock::instant();
        let limit = match engine.queues.known(index, &request.key, began, now) {
            Known::Busy => return Err(deadline.busy(request, HeldBy::ThisProcess)),
            Known::Failed(error) => return Err(request.failed(error)),
            Known::Asked(since) => until.min(since + MIN_ANSWER_TIME),
            // The front waits in the store's queue, so nothing shows whether the key is held: ask the store
            // past the front.
            Known::Nothing if request.backend.capabilities.queue => return Ok(None),
            Known::Nothing => until,
        };
        if now >= limit {
            return Err(request.failed(unanswered(request.backend)));
        }
        tokio::select! {
            biased;
            next = &mut next => {
                let next = next.map_err(|_| deadline.busy(request, HeldBy::ThisProcess))?;
                return Ok(Some(next));
            }
            () = anew => {}
            () = timer::sleep_until(limit) => {}
        }
    }
}
