//! A state of the whole model, and which states are the same.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::canonical::canonical;
use super::client::Client;
use super::message::{Content, Message, Ticks, Token};
use super::node::{Late, Node};
use super::{BEGINNING, Bounds, CLIENTS, NODES, SKEWS};

/// What should not have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A hold counts whose token is not larger than that of an earlier one.
    SmallToken(Token),
    /// A node granted an acquire, or restored a lock, after it had executed the release.
    Late(Late),
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The nodes, by number.
    pub nodes: [Node; NODES],
    /// The clients, by number.
    pub clients: [Client; CLIENTS],
    /// Messages that arrive at any time, in any order, or never.
    pub late: Vec<Message>,
    /// The time.
    pub now: Ticks,
    /// The faults that may still happen.
    pub left: Bounds,
    /// The largest token of a hold that counted.
    pub top: Token,
    /// Nothing happens after it.
    pub flaw: Option<Flaw>,
    /// Tokens have nothing to do with the time, so that states of different times differ.
    pub is_timeless: bool,
}

impl State {
    pub(super) fn new(bounds: Bounds, is_timeless: bool) -> Self {
        let client = |number: usize| Client::new(bounds.rounds[number], SKEWS[number]);
        Self {
            nodes: [Node::default(); NODES],
            clients: std::array::from_fn(client),
            late: vec![],
            now: BEGINNING,
            left: bounds,
            top: 0,
            flaw: None,
            is_timeless,
        }
    }

    pub(super) fn runs(&self) -> [u8; NODES] {
        self.nodes.map(|node| node.run)
    }

    /// Keeps a message for later, unless nobody will read it.
    pub(super) fn keep_late(&mut self, message: Message) {
        let client = &self.clients[usize::from(message.client)];
        let is_read = !client.is_crashed && client.round == message.round;
        if message.is_request() || is_read && message.content != Content::Refused {
            self.late.push(message);
        }
    }
}

/// States that differ only in what nothing will ever look at are one state to the checker.
impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&canonical(self));
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, node) in self.nodes.iter().enumerate() {
            let Node { lock, last, quarantine, .. } = node;
            writeln!(f, "    N{at}: {lock:?}, last token {last}, quarantine {quarantine}")?;
        }
        for (at, client) in self.clients.iter().enumerate() {
            let crashed = if client.is_crashed { " (crashed)" } else { "" };
            writeln!(f, "    C{at}{crashed}: {:?}", client.phase)?;
        }
        self.late.iter().try_for_each(|message| writeln!(f, "    late: {message}"))?;
        self.flaw.iter().try_for_each(|flaw| writeln!(f, "    {flaw:?}"))
    }
}
