//! The promises, and the situations that must be reached for them to mean something.

use stateright::Property;

use super::message::{Message, Process as Id};
use super::process::{Phase, Process};
use super::state::{Flaw, State};
use super::{Bounds, Handover, PROVISIONAL};

/// At most one process can prove its lease.
pub const ONE_PROOF: &str = "no two proofs at once";
/// Bodies start with larger and larger tokens.
pub const TOKENS_GROW: &str = "tokens grow";
/// A release whose reply was lost is not called a loss.
pub const NO_FALSE_LOSS: &str = "a release is not called a loss";
/// A loss is not called a release.
pub const NO_SILENT_LOSS: &str = "a loss is not called a release";
/// A process that wants nothing is not the owner, unless two of its messages are late or lost.
pub const NO_GHOST_HOLD: &str = "nobody owns what it does not want";
/// A process that wants nothing is not queued, unless one of its messages is late or lost.
pub const NO_GHOST_POSITION: &str = "nobody is queued who does not wait";
/// A grant that is never answered ends within the provisional time.
pub const UNANSWERED_ENDS: &str = "an unanswered grant ends soon";
/// While somebody waits the lock is not left alone, but for ticks in which a message is late.
pub const NOT_VACANT: &str = "a free lock is granted to a waiter";
/// Nothing is granted to a process that has not signed for long.
pub const NOT_STALE: &str = "nothing is granted to a stale head";

impl Handover {
    /// The most ticks in a row for which the lock may be free while somebody waits.
    pub(super) const fn most_vacant(&self) -> u8 {
        self.bounds.late
    }
}

/// The promises, and those situations that can be reached within these bounds.
pub(super) fn properties(bounds: Bounds) -> Vec<Property<Handover>> {
    let mut all = promises();
    all.extend(always_reached());
    all.extend(if bounds.late > 0 { with_late_messages(bounds) } else { vec![] });
    all.extend(with_faults(bounds));
    all
}

fn promises() -> Vec<Property<Handover>> {
    vec![
        Property::always(ONE_PROOF, |_, state: &State| {
            state.processes.iter().filter(|process| process.proof() > 0).count() <= 1
        }),
        Property::always(TOKENS_GROW, |_, state: &State| {
            !matches!(state.flaw, Some(Flaw::SmallToken(_)))
        }),
        Property::always(NO_FALSE_LOSS, |_, state: &State| {
            !matches!(state.flaw, Some(Flaw::FalseLoss(_)))
        }),
        Property::always(NO_SILENT_LOSS, |_, state: &State| {
            !matches!(state.flaw, Some(Flaw::SilentLoss(_)))
        }),
        Property::always(NO_GHOST_HOLD, |_, state: &State| {
            state.server.lease.is_none_or(|lease| !wants_nothing(state, lease.owner, 1))
        }),
        Property::always(NO_GHOST_POSITION, |_, state: &State| {
            let queue = &state.server.queue;
            queue.iter().all(|position| !wants_nothing(state, position.process, 0))
        }),
        Property::always(UNANSWERED_ENDS, |_, state: &State| {
            state.server.lease.is_none_or(|lease| lease.unanswered < PROVISIONAL)
        }),
        Property::always(NOT_STALE, |_, state: &State| {
            state.server.lease.is_none_or(|lease| !lease.is_to_stale)
        }),
        Property::always(NOT_VACANT, |model, state: &State| state.vacant <= model.most_vacant()),
    ]
}

/// Is this process idle, with at most so many of its messages under way?
fn wants_nothing(state: &State, id: Id, late: usize) -> bool {
    let process = &state.processes[usize::from(id)];
    let is_idle = process.phase == Phase::Idle && process.is_awake();
    is_idle && state.prompt.is_empty() && state.late_of(id) <= late
}

type Check = fn(&Handover, &State) -> bool;

fn reached(situations: Vec<(bool, &'static str, Check)>) -> Vec<Property<Handover>> {
    let possible = situations.into_iter().filter(|(is_possible, ..)| *is_possible);
    possible.map(|(_, name, check)| Property::sometimes(name, check)).collect()
}

fn always_reached() -> Vec<Property<Handover>> {
    reached(vec![
        (true, "somebody waits while another holds", |_, state| {
            let waits = state.processes.iter().any(Process::is_waiting);
            waits && state.processes.iter().any(|process| process.proof() > 0)
        }),
        (true, "a published grant is held", |_, state| {
            let lease = state.server.lease.filter(|lease| lease.is_published);
            lease.is_some_and(|lease| state.processes[usize::from(lease.owner)].proof() > 0)
        }),
        (true, "the proof is over before the lease is", |_, state| {
            let lease = state.server.lease.filter(|lease| lease.is_renewed);
            lease.is_some_and(|lease| {
                let phase = state.processes[usize::from(lease.owner)].phase;
                matches!(phase, Phase::Holding { proof, .. } if proof < lease.left)
            })
        }),
    ])
}

fn is_late(state: &State, is_it: impl Fn(Message) -> bool) -> bool {
    state.late.iter().any(|message| is_it(*message))
}

/// Is there a late message about the token of the lease of the moment, or about an earlier one?
fn late_token(state: &State, is_it: impl Fn(Message) -> bool, is_current: bool) -> bool {
    let Some(lease) = state.server.lease else { return false };
    let is_so = |token| if is_current { token == lease.token } else { token < lease.token };
    is_late(state, |message| is_it(message) && message.token().is_some_and(is_so))
}

const fn is_grant(message: Message) -> bool {
    matches!(message, Message::Grant { .. })
}

fn with_late_messages(bounds: Bounds) -> Vec<Property<Handover>> {
    let again = bounds.waits[0] > 1;
    let cancels = bounds.cancels > 0;
    reached(vec![
        (true, "a published grant has not arrived", |_, state| late_token(state, is_grant, true)),
        (true, "a grant is late, and another process has the lock", |_, state| {
            late_token(state, is_grant, false)
        }),
        (true, "a sign comes after a later one, or twice", |_, state| {
            is_late(state, |message| {
                let is_older = |from, number| {
                    state.server.queue.iter().any(|it| it.process == from && it.number >= number)
                };
                matches!(message, Message::Sign { from, number } if is_older(from, number))
            })
        }),
        (true, "a grant without proof is renewed before the body", |_, state| {
            let is_so = |phase| matches!(phase, Phase::Waiting { confirming: Some(_), .. });
            state.processes.iter().any(|process| is_so(process.phase))
        }),
        (true, "a release is sent again after it was executed", |_, state| {
            let is_so = |phase| {
                matches!(phase, Phase::Releasing { was_freed: true, has_retried: true, .. })
            };
            state.processes.iter().any(|process| is_so(process.phase))
        }),
        (again, "a release is late, and its process owns another lease", |_, state| {
            is_late(state, |message| {
                matches!(message, Message::Release { from, token, .. }
                    if state.server.lease.is_some_and(|it| it.owner == from && it.token > token))
            })
        }),
        (
            again && bounds.late > 1,
            "an owner has sent the release of its lease, and waits anew",
            |_, state| {
                let is_owner = state.server.lease.is_some_and(|lease| {
                    let owner = &state.processes[usize::from(lease.owner)];
                    owner.is_waiting() && owner.spent == lease.token
                });
                is_owner && late_token(state, |it| matches!(it, Message::Release { .. }), true)
            },
        ),
        (again && cancels, "a leave is late, and its process owns a grant again", |_, state| {
            is_late(state, |message| {
                matches!(message, Message::Leave { from, number } if state.server.lease
                    .is_some_and(|it| it.owner == from && it.number > number && !it.is_renewed))
            })
        }),
        (cancels, "a grant comes to a process that has given up", |_, state| {
            is_late(state, |message| {
                is_grant(message) && state.process(message).phase == Phase::Idle
            })
        }),
    ])
}

fn with_faults(bounds: Bounds) -> Vec<Property<Handover>> {
    let three = bounds.waits[2] > 0;
    reached(vec![
        (three, "two processes wait while a third one holds", |_, state| {
            let waiting = state.processes.iter().filter(|process| process.is_waiting()).count();
            waiting == 2 && state.processes.iter().any(|process| process.proof() > 0)
        }),
        (bounds.crashes > 0, "somebody holds after a holder crashed", |_, state| {
            let crashed = state.processes.iter().find(|process| process.is_crashed);
            let held = crashed.map(|process| process.spent).filter(|token| *token > 0);
            held.is_some_and(|token| state.top > token)
        }),
        (bounds.pauses > 0, "somebody holds while an earlier holder is paused", |_, state| {
            let is_stopped = |process: &Process| {
                process.is_paused && matches!(process.phase, Phase::Holding { proof: 0, .. })
            };
            let holds = state.processes.iter().any(|process| process.proof() > 0);
            holds && state.processes.iter().any(is_stopped)
        }),
        (bounds.restarts > 0, "somebody waits whose sign is of an earlier run", |model, state| {
            let is_of_earlier_run = state.server.queue.iter().any(|it| !it.is_of_this_run);
            model.bounds.restarts > state.left.restarts && is_of_earlier_run
        }),
    ])
}
