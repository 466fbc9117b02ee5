//! A state of the whole model, and which states are the same.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::canonical::canonical;
use super::message::{Message, Process as Id, Token};
use super::process::{Phase, Process};
use super::server::Server;
use super::{Bounds, PROCESSES};

/// What a process was told, or did, that it should not have been or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A body started with a token that is not larger than that of a body before it.
    SmallToken(Token),
    /// A release was called a loss although it had ended the lease.
    FalseLoss(Id),
    /// A loss was called a release.
    SilentLoss(Id),
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// What the server stores.
    pub server: Server,
    /// The processes, by number.
    pub processes: [Process; PROCESSES],
    /// Messages that arrive before anything else happens, in this order.
    pub prompt: Vec<Message>,
    /// Messages that arrive at any time, in any order, or never.
    pub late: Vec<Message>,
    /// The faults that may still happen.
    pub left: Bounds,
    /// For how many ticks a process that is awake has waited while there was no lease.
    pub vacant: u8,
    /// The largest token with which a body has started.
    pub top: Token,
    /// Nothing happens after it.
    pub flaw: Option<Flaw>,
}

impl State {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            server: Server::default(),
            processes: bounds.waits.map(Process::new),
            prompt: vec![],
            late: vec![],
            left: bounds,
            vacant: 0,
            top: 0,
            flaw: None,
        }
    }

    /// Sends messages. Those to a paused process wait for it.
    pub(super) fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            let process = self.process(message);
            if message.is_request() || process.is_awake() {
                self.prompt.push(message);
            } else if process.is_paused {
                self.keep_late(message);
            }
        }
    }

    /// Keeps a message for later. They are sorted, since their order means nothing.
    pub(super) fn keep_late(&mut self, message: Message) {
        let at = self.late.partition_point(|other| *other < message);
        self.late.insert(at, message);
    }

    /// The process that sent a message or will get it.
    #[must_use]
    pub fn process(&self, message: Message) -> &Process {
        &self.processes[usize::from(message.process())]
    }

    /// The processes, by number.
    pub fn numbered(&self) -> impl Iterator<Item = (Id, &Process)> {
        (0..).zip(&self.processes)
    }

    /// How many late messages from or to this process there are.
    #[must_use]
    pub fn late_of(&self, id: Id) -> usize {
        self.late.iter().filter(|message| message.process() == id).count()
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
        writeln!(f, "    server: {:?}", self.server.lease)?;
        writeln!(f, "    queue: {:?}, last ends: {:?}", self.server.queue, self.server.ended)?;
        for (id, process) in self.numbered() {
            let condition = match (process.is_crashed, process.is_paused) {
                (true, _) => " (crashed)",
                (_, true) => " (paused)",
                _ => "",
            };
            let Phase::Holding { .. } = process.phase else {
                writeln!(f, "    P{id}{condition}: {:?}", process.phase)?;
                continue;
            };
            writeln!(f, "    P{id}{condition}: {:?}, proof {}", process.phase, process.proof())?;
        }
        self.late.iter().try_for_each(|message| writeln!(f, "    late: {message}"))?;
        self.flaw.iter().try_for_each(|flaw| writeln!(f, "    {flaw:?}"))
    }
}
