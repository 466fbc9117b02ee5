//! What of a state can make a difference, as bytes: two states with the same bytes have the same future.
//!
//! - Nodes are alike: they are sorted by what they store and what the clients know of them.
//! - Tokens follow the time: they count from a few ticks ago, older ones by their rank, and the time itself is left
//!   out.
//! - What nothing can look at any more is left out: tombstones that refuse nothing that is on its way, the run of a
//!   server that no request names.

use super::client::{Client, Phase, Renewal, Reply};
use super::message::{Client as Id, Content, Message, Round, Token};
use super::node::{Late, Node};
use super::state::{Flaw, State};
use super::{CLIENTS, NODES, OLDEST, PER_TICK};

/// More than there can be tokens in use that are older.
const RANKS: u8 = 32;

/// The bytes.
pub(super) fn canonical(state: &State) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(160);
    for id in 0..CLIENTS {
        bytes.extend(of_client(state, id));
    }
    let mut columns: Vec<_> = (0..NODES).map(|node| column(state, node)).collect();
    columns.sort_unstable();
    bytes.extend(columns.into_iter().flatten());
    let left = &state.left;
    let flaw = match state.flaw {
        None => 0,
        Some(Flaw::SmallToken(_)) => 1,
        Some(Flaw::Late(Late::Granted)) => 2,
        Some(Flaw::Late(Late::Restored)) => 3,
    };
    let now = if state.is_timeless { state.now } else { 0 };
    bytes.extend([now, token(state, state.top), flaw]);
    bytes.extend([left.late, left.crashes, left.restarts]);
    bytes
}

/// A token: of the last few ticks relative to the time, an older one by its rank among those in use.
fn token(state: &State, token: Token) -> u8 {
    let oldest = Token::from(state.now.saturating_sub(OLDEST)) * PER_TICK;
    let recent = if state.is_timeless { Some(token) } else { token.checked_sub(oldest) };
    recent.map_or_else(
        || old_tokens(state, token),
        |recent| RANKS + u8::try_from(recent).unwrap_or(u8::MAX - RANKS),
    )
}

/// How many tokens that something names are smaller.
fn old_tokens(state: &State, token: Token) -> u8 {
    let locks = state.nodes.iter().filter_map(|node| Some(node.lock?.token));
    let late = state.late.iter().filter_map(|message| match message.content {
        Content::Raise { token, .. }
        | Content::Renew { token, .. }
        | Content::Granted { token } => Some(token),
        _ => None,
    });
    let alive = state.clients.iter().filter(|client| !client.is_crashed);
    let known = alive.flat_map(|client| client.phase.tokens());
    let smaller = locks.chain(late).chain(known).filter(|other| *other < token);
    let mut smaller: Vec<_> = smaller.collect();
    smaller.sort_unstable();
    smaller.dedup();
    u8::try_from(smaller.len()).unwrap_or(u8::MAX)
}

/// A token that only matters while it is larger than new ones.
fn recent(state: &State, of: Token) -> u8 {
    let token = token(state, of);
    if token < RANKS { 0 } else { token }
}

/// A node, and what the clients know of it or have under way to it.
fn column(state: &State, at: usize) -> Vec<u8> {
    let node = &state.nodes[at];
    let mut bytes = Vec::with_capacity(48);
    if let Some(lock) = node.lock {
        let lock_round = round(state, lock.owner, lock.round);
        bytes.extend([1 + lock.owner, lock_round, token(state, lock.token), lock.left]);
    }
    bytes.extend([u8::MAX, recent(state, node.last), node.quarantine]);
    let mut late: Vec<_> = state.late.iter().filter(|it| usize::from(it.node) == at).collect();
    for (id, client) in (0..).zip(&state.clients) {
        bytes.extend(tombstone(state, node, id, &late));
        bytes.extend(known(state, client, at));
    }
    late.sort_unstable();
    bytes.extend(late.into_iter().flat_map(|message| of_message(state, node, *message)));
    bytes.push(u8::MAX);
    bytes
}

/// The tombstone of this owner, and whether it was told to leave one, if one of these messages may run into it.
fn tombstone(state: &State, node: &Node, id: Id, late: &[&Message]) -> [u8; 2] {
    let rounds = late.iter().filter(|message| {
        let is_refused = matches!(message.content, Content::Acquire { .. } | Content::Renew { .. });
        is_refused && message.client == id
    });
    let Some(first) = rounds.map(|message| message.round).min() else { return [0, 0] };
    let seen = |up_to| if up_to >= first { round(state, id, up_to) } else { 0 };
    [seen(node.gone[usize::from(id)]), seen(node.released[usize::from(id)])]
}

/// The number of a round of this client, from the smallest one that is still in use.
fn round(state: &State, id: Id, round: Round) -> u8 {
    let late = state.late.iter().filter(|message| message.client == id);
    let locks = state.nodes.iter().filter_map(|node| node.lock);
    let locks = locks.filter(|lock| lock.owner == id).map(|lock| lock.round);
    let first = late.map(|message| message.round).chain(locks).min();
    let first = first.unwrap_or(u8::MAX).min(state.clients[usize::from(id)].round);
    (round + 1).saturating_sub(first)
}

fn of_client(state: &State, id: usize) -> [u8; 7] {
    let client = &state.clients[id];
    let round = round(state, u8::try_from(id).unwrap_or(u8::MAX), client.round);
    if client.is_crashed {
        return [0, 0, 9, u8::from(client.has_held), 0, 0, 0];
    }
    let [kind, one, two, three] = match client.phase {
        Phase::Idle => [0; 4],
        Phase::Asking { since, .. } => [1, since, 0, 0],
        Phase::Writing { since, token: mine, .. } => [2, since, token(state, mine), 0],
        Phase::Holding { token: mine, proof, renewal } => {
            let renewal = match renewal {
                Renewal::NotSent => 100,
                Renewal::Sent { ago, .. } => ago,
                Renewal::Done { .. } => 101,
            };
            [3, token(state, mine), proof, renewal]
        }
    };
    [client.rounds_left, round, kind, one, two, three, 0]
}

/// What this client knows of a node.
fn known(state: &State, client: &Client, node: usize) -> [u8; 3] {
    if client.is_crashed {
        return [0; 3];
    }
    let is_outdated = client.greeted[node] != state.nodes[node].run;
    let reply = |reply| match reply {
        Reply::NotAsked => 0,
        Reply::Silent => 1,
        Reply::Refused => 2,
        Reply::Granted(answered) => 3 + token(state, answered),
    };
    match &client.phase {
        Phase::Asking { replies, .. } => [reply(replies[node]), 0, u8::from(is_outdated)],
        Phase::Writing { replies, stored, .. } => [reply(replies[node]), u8::from(stored[node]), 0],
        Phase::Holding {
            renewal: Renewal::Sent { renewed, .. } | Renewal::Done { renewed },
            ..
        } => [u8::from(renewed[node]), 0, 0],
        Phase::Idle | Phase::Holding { .. } => [0; 3],
    }
}

fn of_message(state: &State, node: &Node, message: Message) -> [u8; 5] {
    let (kind, one, two) = match message.content {
        Content::Acquire { proposal, run } => {
            (0, recent(state, proposal), u8::from(run == node.run))
        }
        Content::Raise { token: mine, run } => (1, token(state, mine), u8::from(run == node.run)),
        Content::Renew { token: mine, run } => (2, token(state, mine), u8::from(run == node.run)),
        Content::Release { always } => (3, u8::from(always), 0),
        Content::Granted { token: mine } => (4, token(state, mine), 0),
        Content::Refused => (5, 0, 0),
        Content::Raised => (6, 0, 0),
        Content::Renewed => (7, 0, 0),
    };
    [message.client, round(state, message.client, message.round), kind, one, two]
}
