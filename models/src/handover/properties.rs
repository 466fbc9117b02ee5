//! The promises, and the situations that must be reached for them to mean something.

use stateright::Property;

use super::message::{Message, Process as Id};
use super::process::Phase;
use super::state::{Flaw, State};
use super::{Handover, PROVISIONAL};

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

pub(super) fn properties() -> Vec<Property<Handover>> {
    let mut all = promises();
    all.extend(situations());
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

fn waiting(state: &State) -> usize {
    state.processes.iter().filter(|process| process.is_waiting()).count()
}

fn is_late(state: &State, is_it: impl Fn(&Message) -> bool) -> bool {
    state.late.iter().any(is_it)
}

fn situations() -> Vec<Property<Handover>> {
    vec![
        Property::sometimes("two processes wait while a third one holds", |_, state: &State| {
            let holds = state.processes.iter().any(|process| process.proof() > 0);
            holds && waiting(state) == 2
        }),
        Property::sometimes("a published grant is held", |_, state: &State| {
            let lease = state.server.lease.filter(|lease| lease.is_published);
            lease.is_some_and(|lease| state.processes[usize::from(lease.owner)].proof() > 0)
        }),
        Property::sometimes("a published grant has not arrived", |_, state: &State| {
            is_late(state, |message| matches!(message, Message::Grant { token, .. }
                if state.server.lease.is_some_and(|lease| lease.token == *token)))
        }),
        Property::sometimes("a grant arrives after its lease", |_, state: &State| {
            state.server.lease.is_some() && is_late(state, |message| {
                matches!(message, Message::Grant { token, .. } if *token < state.server.last_token)
            })
        }),
        Property::sometimes("a sign is executed after a later one", |_, state: &State| {
            is_late(state, |message| {
                let is_overtaken = |from: Id, number| {
                    state.server.queue.iter().any(|it| it.process == from && it.number > number)
                };
                matches!(message, Message::Sign { from, number } if is_overtaken(*from, *number))
            })
        }),
        Property::sometimes("a late release of an earlier lease", |_, state: &State| {
            is_late(state, |message| matches!(message, Message::Release { from, token, .. }
                if state.server.lease.is_some_and(|it| it.owner == *from && it.token > *token)))
        }),
    ]
}
