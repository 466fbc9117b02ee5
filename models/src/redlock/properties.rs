//! The promises, and the situations that must be reached for them to mean something.

use stateright::Property;

use super::client::{Phase, Reply};
use super::message::Content;
use super::node::Late;
use super::state::{Flaw, State};
use super::{Bounds, Redlock};

/// At most one client can prove its hold.
pub const ONE_PROOF: &str = "no two valid holds";
/// Holds count with larger and larger tokens.
pub const TOKENS_GROW: &str = "tokens grow";
/// A node that has executed a release grants no acquire that comes after it.
pub const LATE_REFUSED: &str = "a late acquire is refused";

/// A node that has executed a release restores no lock for a renewal that comes after it.
pub const NOT_RESTORED: &str = "a late renewal restores nothing";
/// No state was left out because the clock had come to its end.
pub const NOT_CUT: &str = "no schedule is cut off";

/// The promises, and those situations that can be reached within these bounds.
pub(super) fn properties(bounds: Bounds) -> Vec<Property<Redlock>> {
    let mut all = promises();
    let situations = situations(bounds).into_iter().filter(|(is_possible, ..)| *is_possible);
    all.extend(situations.map(|(_, name, check)| Property::sometimes(name, check)));
    all
}

fn promises() -> Vec<Property<Redlock>> {
    let mut all = vec![
        Property::always(TOKENS_GROW, |_, state: &State| {
            !matches!(state.flaw, Some(Flaw::SmallToken(_)))
        }),
        Property::always(LATE_REFUSED, |_, state: &State| {
            state.flaw != Some(Flaw::Late(Late::Granted))
        }),
        Property::always(NOT_RESTORED, |_, state: &State| {
            state.flaw != Some(Flaw::Late(Late::Restored))
        }),
    ];
    all.push(Property::always(NOT_CUT, |model: &Redlock, state: &State| {
        state.is_timeless || state.now < model.ticks()
    }));
    all.push(Property::always(ONE_PROOF, |_, state: &State| {
        state.clients.iter().filter(|client| client.proof() > 0).count() <= 1
    }));
    all
}

type Check = fn(&Redlock, &State) -> bool;

fn have_held(state: &State) -> usize {
    state.clients.iter().filter(|client| client.has_held).count()
}

fn is_late(state: &State, is_it: impl Fn(&Content) -> bool) -> bool {
    state.late.iter().any(|message| is_it(&message.content))
}

fn situations(bounds: Bounds) -> Vec<(bool, &'static str, Check)> {
    let late = bounds.late > 0;
    vec![
        (true, "two clients have held, one after the other", |_, state| have_held(state) > 1),
        (true, "votes are split", |_, state| {
            let grants = state.clients.iter().filter(|client| match client.phase {
                Phase::Asking { replies, .. } => {
                    replies.iter().any(|reply| matches!(reply, Reply::Granted(_)))
                }
                _ => false,
            });
            grants.count() > 1
        }),
        (late, "the nodes disagree on the token", |_, state| {
            state.clients.iter().any(|client| matches!(client.phase, Phase::Writing { .. }))
        }),
        (late, "an acquire arrives after its release", |_, state| {
            state.late.iter().any(|message| {
                let node = &state.nodes[usize::from(message.node)];
                let is_acquire = matches!(message.content, Content::Acquire { .. });
                is_acquire && node.released[usize::from(message.client)] >= message.round
            })
        }),
        (late, "a raise is late", |_, state| {
            is_late(state, |content| matches!(content, Content::Raise { .. }))
        }),
        (late, "a renewal is late", |_, state| {
            is_late(state, |content| matches!(content, Content::Renew { .. }))
        }),
        (bounds.crashes > 0, "a client holds after a holder crashed", |_, state| {
            let held = state.clients.iter().filter(|client| client.is_crashed && client.has_held);
            held.count() > 0 && state.clients.iter().any(|client| client.proof() > 0)
        }),
        (bounds.restarts > 0, "a restarted node counts for a hold", |_, state| {
            state.nodes.iter().any(|node| {
                let held = node.lock.filter(|_| node.run > 0 && node.quarantine == 0);
                held.is_some_and(|lock| state.clients[usize::from(lock.owner)].proof() > 0)
            })
        }),
        (bounds.restarts > 0, "a lock is renewed on a node that must not count", |_, state| {
            state.nodes.iter().any(|node| node.quarantine > 0 && node.lock.is_some())
        }),
    ]
}
