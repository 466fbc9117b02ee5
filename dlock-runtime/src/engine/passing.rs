//! Passing a lease inside a process: the hold that ends leaves its lease to the next task of the local queue, without a
//! request to the store. Each hold has a token of its own, from the block that the store reserved with the lease.
//!
//! A lease is passed for a limited number of times and a limited time, so that other processes get their turn. Then it
//! is released, and the store decides who is next.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Engine;
use super::contention::{ContendedWait, LocalHolder};
use super::hold::{Closing, Granted, Hold};
use super::local_queue::{Next, Turn};
use super::release::release_passed;
use super::request::Request;
use super::telemetry;
use crate::backend::Mode;
use crate::clock::{self, Moment};
use crate::sync::oneshot;
use crate::token::FencingToken;

/// How long a lease may be on its way to a task that is not polled. Then it is released, because other processes wait for
/// it too.
pub(super) const UNRECEIVED: Duration = Duration::from_millis(100);

/// What a lease has left for holds after the present one.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// The tokens of the lease's block that follow the one of the present hold. At least one.
    tokens: u16,
    /// From then on the lease is released.
    until: Instant,
}

impl Allowance {
    /// The allowance of a lease that was granted just now, with so many tokens. `None`: it is not passed on.
    pub(crate) fn new(request: &Request<'_>, tokens: u16) -> Option<Box<Self>> {
        let handover = request.handover();
        let tokens = tokens.saturating_sub(1).min(handover.passes());
        (tokens > 0).then(|| {
            let within = handover.within().min(request.ttl / 4);
            Box::new(Self { tokens, until: clock::instant() + within })
        })
    }

    fn is_open(&self, now: &Moment) -> bool {
        now.instant() < self.until
    }

    /// What is left for the hold after the next one.
    fn after_pass(mut self: Box<Self>) -> Option<Box<Self>> {
        self.tokens -= 1;
        (self.tokens > 0).then_some(self)
    }
}

/// A lease as a waiter wants it, or as it is passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passable {
    /// It bounds how long others wait for a process that has died, and how long a hold outlasts an outage of the store.
    pub(crate) ttl: Duration,
    /// Where it is renewed. The clocks of two runtimes cannot be compared.
    pub(crate) runtime: runtime::Id,
}

impl Passable {
    /// Whether a waiter that wants this accepts that lease.
    pub(crate) fn accepts(&self, lease: &Self) -> bool {
        self.ttl == lease.ttl && self.runtime == lease.runtime
    }
}

/// A lease between two holds: the last hold has been closed, and the next one has not begun.
///
/// If it is dropped, because the task that was to have it gave up, it is passed to the next task or released.
#[derive(Debug)]
pub(crate) struct Lease(Option<Passed>);

#[derive(Debug)]
struct Passed {
    /// The last hold, as it was closed. A shutdown waits for it.
    last: Arc<Hold>,
    allowance: Box<Allowance>,
    turn: Turn,
}

impl Passed {
    /// The next task that accepts it, if the lease may be passed on now.
    fn next_waiter(&self) -> Option<oneshot::Sender<Next>> {
        let now = Moment::now();
        let may_pass = self.allowance.is_open(&now)
            && self.last.has_proof_to_pass(&now)
            && self.last.send_off(now.instant() + UNRECEIVED);
        may_pass.then(|| self.turn.next_accepting(&self.last.passable()))?
    }

    /// Passes the lease on. If nobody accepts it, or it may not be passed on, it is returned, for the caller to release
    /// it.
    fn pass(mut self) -> Result<(), Self> {
        while let Some(waiter) = self.next_waiter() {
            let Err(Next::Lease(mut refused)) = waiter.send(Next::Lease(Lease(Some(self)))) else {
                return Ok(());
            };
            // The waiter gave up just now.
            let Some(back) = refused.0.take() else { return Ok(()) };
            self = back;
        }
        // If it was recalled, it is being released.
        if self.last.receive() { Err(self) } else { Ok(()) }
    }
}

/// Releases a lease that was on its way to a task that does not receive it. The task keeps its turn.
pub(super) fn recall(last: &Arc<Hold>) {
    // Before the release: from then on, nobody here knows whether somebody holds the key.
    last.engine.queues.note_recall(last.backend().index, &last.claim.key);
    release_passed(last, None);
}

impl Lease {
    /// Begins the next hold, and ends the wait for it. If too little proof is left, the lease is released in the background, and its turn is
    /// returned.
    pub(super) fn begin(
        mut self,
        engine: &Arc<Engine>,
        request: &Request<'_>,
        runtime: &Handle,
        wait: Option<Box<ContendedWait<'_>>>,
    ) -> Result<Arc<Hold>, Option<Turn>> {
        let Some(Passed { last, allowance, turn }) = self.0.take() else { return Err(None) };
        if !last.receive() {
            return Err(Some(turn));
        }
        let now = Moment::now();
        if !last.has_proof_to_pass(&now) {
            release_passed(&last, None);
            return Err(Some(turn));
        }
        let token = FencingToken::new(last.token.get() + 1);
        let holder = LocalHolder { site: request.site(), token };
        turn.note_holder(holder);
        match wait {
            Some(wait) => wait.end_with_hold(holder),
            None => engine.contended.note_hold(request.backend.index, &request.key, holder),
        }
        let (proved, validity) = last.proof();
        let granted = Granted {
            claim: last.claim.clone(),
            token,
            since: now,
            proved,
            validity,
            in_doubt: false,
            is_passed: true,
            allowance: allowance.after_pass(),
            turn: Some(turn),
        };
        let hold = Hold::begin(engine, request, granted, engine.watchdogs.of(runtime));
        last.untrack();
        Ok(hold)
    }

    /// Gives the lease up, and keeps the turn. The lease is released in the background.
    pub(super) fn into_turn(mut self) -> Option<Turn> {
        let Passed { last, turn, .. } = self.0.take()?;
        if last.receive() {
            release_passed(&last, None);
        }
        Some(turn)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(passed) = self.0.take()
            && let Err(Passed { last, turn, .. }) = passed.pass()
        {
            turn.note_release();
            release_passed(&last, Some(turn));
        }
    }
}

/// Ends a hold for its owner. `None`: its lease was passed on, and is not to be released.
pub(super) fn close_or_pass(hold: &Arc<Hold>) -> Option<Closing> {
    let mut closing = hold.close_to_pass();
    if let Some(allowance) = closing.allowance.take()
        && let Some(turn) = closing.turn.take()
    {
        let passed = Passed { last: Arc::clone(hold), allowance, turn };
        match passed.pass() {
            Ok(()) => {
                telemetry::released(hold.labels(), hold.token, false, || hold.age());
                return None;
            }
            Err(Passed { turn, .. }) => closing.turn = Some(turn),
        }
    }
    if let Some(turn) = &closing.turn {
        turn.note_release();
    }
    // A hold that was lost has been noted, and somebody else may hold the key by now.
    if hold.claim.mode == Mode::Exclusive && closing.before.is_ok() {
        hold.engine.contended.note_release(hold.backend().index, &hold.claim.key);
    }
    Some(closing)
}
