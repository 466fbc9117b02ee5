//! What of a state can make a difference, as bytes: two states with the same bytes have the same future.
//!
//! - Processes are alike: they are put in an order that depends on what they do, not on their numbers.
//! - Numbers and tokens are only compared with each other, so they count from the smallest that is still in use.
//! - What nothing can look at any more is left out: signs that no message can echo, notes that refuse nothing that is
//!   on its way, the end of a lease that nobody will ask about.

use super::PROCESSES;
use super::message::{Message, Number, Process as Id, Token};
use super::process::{Phase, Process, Renewal};
use super::server::{Ended, Note};
use super::state::{Flaw, State};

/// The bytes. Of processes that look alike from outside, each order is tried.
pub(super) fn canonical(state: &State) -> Vec<u8> {
    let base = bases(state);
    let keys: [_; PROCESSES] = std::array::from_fn(|at| key(state, at, base[at]));
    let is_sorted = |order: &[Id; PROCESSES]| order.is_sorted_by_key(|id| keys[usize::from(*id)]);
    let orders = ORDERS.into_iter().filter(is_sorted);
    orders.map(|order| View::new(state, order, base).bytes()).min().unwrap_or_default()
}

/// Every order of the processes.
const ORDERS: [[Id; PROCESSES]; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// For each process the smallest number in use.
fn bases(state: &State) -> [Number; PROCESSES] {
    let base = |(id, process): (Id, &Process)| numbers(state, id).min().unwrap_or(process.next);
    let mut bases = [0; PROCESSES];
    bases.iter_mut().zip(state.numbered().map(base)).for_each(|(to, base)| *to = base);
    bases
}

/// One way to number processes, signs and tokens.
struct View<'a> {
    state: &'a State,
    /// The processes in their new order.
    order: [Id; PROCESSES],
    /// For each process the smallest number in use.
    base: [Number; PROCESSES],
    /// The tokens in use, in order.
    tokens: Vec<Token>,
    bytes: Vec<u8>,
}

impl<'a> View<'a> {
    fn new(state: &'a State, order: [Id; PROCESSES], base: [Number; PROCESSES]) -> Self {
        Self { state, order, base, tokens: tokens(state), bytes: Vec::with_capacity(128) }
    }

    fn bytes(mut self) -> Vec<u8> {
        self.processes();
        self.server();
        self.messages(&self.state.prompt, true);
        self.messages(&self.state.late, false);
        self.rest();
        self.bytes
    }

    fn name(&self, id: Id) -> u8 {
        let at = self.order.iter().position(|other| *other == id);
        u8::try_from(at.unwrap_or(PROCESSES)).unwrap_or(u8::MAX)
    }

    fn number(&self, id: Id, number: Number) -> u8 {
        (number + 1).saturating_sub(self.base[usize::from(id)])
    }

    /// Tokens that nothing names any more come out as the next larger one that something does.
    fn token(&self, token: Token) -> u8 {
        let rank = self.tokens.partition_point(|other| *other < token);
        u8::try_from(rank).unwrap_or(u8::MAX)
    }

    fn processes(&mut self) {
        for id in self.order {
            let process = &self.state.processes[usize::from(id)];
            let base = self.base[usize::from(id)];
            self.bytes.extend(own(process, base, |token| self.token(token)));
            if process.is_crashed {
                continue;
            }
            let can_echo = process.sent.iter().filter(|(number, _)| *number >= base);
            self.bytes.extend(can_echo.flat_map(|(number, age)| [*number + 1 - base, *age]));
            let spent = offered(self.state, id).filter(|token| *token <= process.spent).max();
            self.bytes.extend([u8::MAX, spent.map_or(0, |token| 1 + self.token(token))]);
        }
    }

    fn server(&mut self) {
        let server = &self.state.server;
        if let Some(lease) = server.lease {
            self.bytes.extend([
                self.name(lease.owner),
                self.token(lease.token),
                lease.left,
                self.number(lease.owner, lease.number),
                u8::from(lease.is_published)
                    | u8::from(lease.is_renewed) << 1
                    | u8::from(lease.is_to_stale) << 2,
                lease.unanswered,
            ]);
        }
        self.bytes.push(u8::MAX);
        for position in &server.queue {
            self.bytes.extend([
                self.name(position.process),
                self.number(position.process, position.number),
                position.age,
                u8::from(position.is_of_this_run),
            ]);
        }
        self.bytes.push(u8::MAX);
        for id in self.order {
            let Note { number, left } = note(self.state, id);
            self.bytes.extend([self.number(id, number) * u8::from(left > 0), left]);
        }
        let ended = server.ended.iter().filter(|ended| can_ask(self.state, ended));
        let mut ended: Vec<_> = ended
            .map(|ended| {
                [self.name(ended.process), self.token(ended.token), u8::from(ended.was_released)]
            })
            .collect();
        ended.sort_unstable();
        self.bytes.extend(ended.into_iter().flatten());
        self.bytes.push(u8::MAX);
    }

    fn messages(&mut self, messages: &[Message], in_order: bool) {
        let mut all: Vec<_> = messages.iter().map(|message| self.message(*message)).collect();
        if !in_order {
            all.sort_unstable();
        }
        self.bytes.extend(all.into_iter().flatten());
        self.bytes.push(u8::MAX);
    }

    fn message(&self, message: Message) -> [u8; 6] {
        let (kind, one, two) = match message {
            Message::Enqueue { deadline, .. } => (0, deadline, 0),
            Message::Sign { .. } => (1, 0, 0),
            Message::Leave { .. } => (2, 0, 0),
            Message::Renew { .. } => (3, 0, 0),
            Message::Release { .. } => (4, 0, 0),
            Message::Grant { age, lease, .. } => (5, age, lease),
            Message::Owner { left, .. } => (6, left, 0),
            Message::Unknown { .. } => (7, 0, 0),
            Message::Renewed { .. } => (8, 0, 0),
            Message::Released { .. } => (9, 0, 0),
            Message::NotHeld { was_released, .. } => (10, u8::from(was_released), 0),
        };
        let id = message.process();
        let number = message.number().map_or(0, |number| self.number(id, number));
        let token = message.token().map_or(0, |token| self.token(token));
        [kind, self.name(id), number, token, one, two]
    }

    fn rest(&mut self) {
        let left = &self.state.left;
        let flaw = match self.state.flaw {
            None => 0,
            Some(Flaw::SmallToken(_)) => 1,
            Some(Flaw::FalseLoss(_)) => 2,
            Some(Flaw::SilentLoss(_)) => 3,
        };
        let can_start = (0..).take(PROCESSES).flat_map(|id| offered(self.state, id));
        let top = can_start.filter(|token| *token <= self.state.top).max();
        self.bytes.extend([left.late, left.cancels, left.crashes, left.pauses, left.restarts]);
        self.bytes.extend([self.state.vacant, flaw, top.map_or(0, |top| 1 + self.token(top))]);
    }
}

/// What a process is, without what others know of it.
fn own(process: &Process, base: Number, token: impl Fn(Token) -> u8) -> [u8; 6] {
    if process.is_crashed {
        return [u8::MAX; 6];
    }
    let has_signed = process.is_waiting() && process.has_signed;
    let flags = u8::from(has_signed) | u8::from(process.is_paused) << 1;
    let phase = match process.phase {
        Phase::Idle => [0, 0, 0, 0],
        Phase::Waiting { first, confirming } => {
            let first = (first + 1).saturating_sub(base).max(1);
            let (of, age) = confirming.map_or((u8::MAX, 0), |(of, age)| (token(of), age));
            [1, first, of, age]
        }
        Phase::Holding { token: mine, proof, renewal } => {
            let renewal = match renewal {
                Renewal::NotSent => 100,
                Renewal::SentAgo(age) => age,
                Renewal::Done => 101,
            };
            [2, token(mine), proof, renewal]
        }
        Phase::Releasing { token: mine, has_retried, has_asked, was_freed } => {
            let has = u8::from(has_retried) | u8::from(has_asked) << 1;
            [3, token(mine), has, u8::from(was_freed)]
        }
    };
    let [kind, one, two, three] = phase;
    [process.waits | flags << 4, kind, one, two, three, process.next - base]
}

/// What processes are sorted by.
fn key(state: &State, at: usize, base: Number) -> ([u8; 6], usize, bool, usize) {
    let is_of = |process: Id| usize::from(process) == at;
    let position = state.server.queue.iter().position(|position| is_of(position.process));
    let is_owner = state.server.lease.is_some_and(|lease| is_of(lease.owner));
    let sent = messages(state).filter(|message| is_of(message.process())).count();
    (own(&state.processes[at], base, |_| 0), position.unwrap_or(PROCESSES), is_owner, sent)
}

fn messages(state: &State) -> impl Iterator<Item = Message> {
    state.prompt.iter().chain(&state.late).copied()
}

/// The numbers of this process that something may still compare.
fn numbers(state: &State, id: Id) -> impl Iterator<Item = Number> {
    let sent = messages(state).filter(move |message| message.process() == id);
    let positions = state.server.queue.iter().filter(move |position| position.process == id);
    let lease = state.server.lease.iter().filter(move |lease| lease.owner == id);
    sent.filter_map(Message::number)
        .chain(positions.map(|position| position.number))
        .chain(lease.map(|lease| lease.number))
}

/// The note about this process, if it may refuse something.
fn note(state: &State, id: Id) -> Note {
    let note = state.server.gone[usize::from(id)];
    let is_refused = |message: Message| {
        let is_sign = matches!(message, Message::Enqueue { .. } | Message::Sign { .. });
        is_sign && message.process() == id && message.number() <= Some(note.number)
    };
    if messages(state).any(is_refused) { note } else { Note::default() }
}

/// May this process still ask how its lease ended?
fn can_ask(state: &State, ended: &Ended) -> bool {
    let names_it = |message: Message| {
        message.process() == ended.process && message.token() == Some(ended.token)
    };
    let is_releasing = match state.processes[usize::from(ended.process)].phase {
        Phase::Holding { token, .. } | Phase::Releasing { token, .. } => token == ended.token,
        Phase::Idle | Phase::Waiting { .. } => false,
    };
    is_releasing || messages(state).any(names_it)
}

/// The tokens that this process may still be offered, other than new ones.
fn offered(state: &State, id: Id) -> impl Iterator<Item = Token> {
    let lease = state.server.lease.iter().filter(move |lease| lease.owner == id);
    let grants = messages(state).filter(move |message| {
        let is_grant = matches!(message, Message::Grant { .. } | Message::Owner { .. });
        is_grant && message.process() == id
    });
    lease.map(|lease| lease.token).chain(grants.filter_map(Message::token))
}

/// The tokens that something names.
fn tokens(state: &State) -> Vec<Token> {
    let phases = state.processes.iter().filter_map(|process| match process.phase {
        Phase::Holding { token, .. } | Phase::Releasing { token, .. } => Some(token),
        Phase::Waiting { confirming, .. } => confirming.map(|(token, _)| token),
        Phase::Idle => None,
    });
    let lease = state.server.lease.iter().map(|lease| lease.token);
    let mut tokens: Vec<_> =
        messages(state).filter_map(Message::token).chain(phases).chain(lease).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}
