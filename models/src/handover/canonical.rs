//! What of a state can make a difference, as bytes: two states with the same bytes have the same future.
//!
//! - Processes are alike: of all orders of them, the one with the smallest bytes stands for all.
//! - Numbers and tokens are only compared with each other, so each is replaced by its rank among those in use.
//! - What nothing can look at any more is left out: signs that no message can echo, notes that refuse nothing that is
//!   on its way, the end of a lease that nobody will ask about.

use super::PROCESSES;
use super::message::{Message, Number, Process as Id, Token};
use super::process::{Phase, Process, Renewal};
use super::server::{Ended, Note};
use super::state::{Flaw, State};

/// The bytes.
pub(super) fn canonical(state: &State) -> Vec<u8> {
    let numbers: [_; PROCESSES] = std::array::from_fn(|at| numbers(state, at));
    let tokens = tokens(state);
    let keys: [_; PROCESSES] = std::array::from_fn(|at| key(state, at));
    let is_sorted = |order: &[Id; PROCESSES]| order.is_sorted_by_key(|id| keys[usize::from(*id)]);
    let orders = ORDERS.into_iter().filter(is_sorted);
    let view = |order| View { state, order, numbers: &numbers, tokens: &tokens };
    orders.map(|order| view(order).bytes()).min().unwrap_or_default()
}

/// Every order of the processes.
const ORDERS: [[Id; PROCESSES]; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// What processes are sorted by before orders are tried: anything that does not depend on their names.
fn key(state: &State, at: usize) -> (u8, [u8; 6], usize, bool, usize) {
    let is_of = |process: Id| usize::from(process) == at;
    let position = state.server.queue.iter().position(|position| is_of(position.process));
    let is_owner = state.server.lease.is_some_and(|lease| is_of(lease.owner));
    let sent = messages(state).filter(|message| is_of(message.process())).count();
    let process = &state.processes[at];
    let own = own(process, |_| 0, |_| 0);
    let waits = if process.is_crashed { 0 } else { process.waits };
    (waits, own, position.unwrap_or(PROCESSES), is_owner, sent)
}

fn rank(value: u8, in_use: &[u8]) -> u8 {
    u8::try_from(in_use.partition_point(|other| *other < value)).unwrap_or(u8::MAX)
}

/// A state, with the processes in some order.
struct View<'a> {
    state: &'a State,
    order: [Id; PROCESSES],
    /// The numbers of each process that something may still compare.
    numbers: &'a [Vec<Number>; PROCESSES],
    /// The tokens that something names.
    tokens: &'a [Token],
}

impl View<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        self.order.iter().for_each(|id| self.process(*id, &mut bytes));
        self.server(&mut bytes);
        let mut late: Vec<_> = self.state.late.iter().map(|it| self.message(*it)).collect();
        late.sort_unstable();
        let prompt = self.state.prompt.iter().map(|it| self.message(*it));
        bytes.extend(prompt.flatten());
        bytes.push(u8::MAX);
        bytes.extend(late.into_iter().flatten());
        bytes.push(u8::MAX);
        self.rest(&mut bytes);
        bytes
    }

    fn name(&self, id: Id) -> u8 {
        let at = self.order.iter().position(|other| *other == id);
        u8::try_from(at.unwrap_or(PROCESSES)).unwrap_or(u8::MAX)
    }

    fn number(&self, id: Id, number: Number) -> u8 {
        rank(number, &self.numbers[usize::from(id)])
    }

    fn token(&self, token: Token) -> u8 {
        rank(token, self.tokens)
    }

    fn process(&self, id: Id, bytes: &mut Vec<u8>) {
        let process = &self.state.processes[usize::from(id)];
        bytes.extend(own(process, |number| self.number(id, number), |token| self.token(token)));
        if process.is_crashed {
            return;
        }
        let age = |number: Option<Number>| {
            let sign = process.sent.iter().find(|(sent, _)| Some(*sent) == number);
            sign.map_or(u8::MAX, |(_, age)| *age)
        };
        bytes.extend(self.numbers[usize::from(id)].iter().map(|number| age(Some(*number))));
        let newest = process.sent.last().filter(|_| process.is_waiting());
        let spent = offered(self.state, id).filter(|token| *token <= process.spent).max();
        let spent = spent.map_or(0, |token| 1 + self.token(token));
        bytes.extend([process.waits, age(newest.map(|(number, _)| *number)), spent, u8::MAX]);
    }

    fn server(&self, bytes: &mut Vec<u8>) {
        let server = &self.state.server;
        if let Some(lease) = server.lease {
            let is = u8::from(lease.is_published)
                | u8::from(lease.is_renewed) << 1
                | u8::from(lease.is_to_stale) << 2;
            let number = self.number(lease.owner, lease.number);
            bytes.extend([self.name(lease.owner), self.token(lease.token), lease.left]);
            bytes.extend([number, is, lease.unanswered]);
        }
        bytes.push(u8::MAX);
        for position in &server.queue {
            let number = self.number(position.process, position.number);
            bytes.extend([self.name(position.process), number, position.age]);
            bytes.push(u8::from(position.is_of_this_run));
        }
        bytes.push(u8::MAX);
        for id in self.order {
            let Note { number, left } = note(self.state, id);
            bytes.extend([self.number(id, number + 1), left]);
        }
        let ended = server.ended.iter().filter(|ended| can_ask(self.state, **ended));
        let told =
            |it: &Ended| [self.name(it.process), self.token(it.token), u8::from(it.was_released)];
        let mut ended: Vec<_> = ended.map(told).collect();
        ended.sort_unstable();
        bytes.extend(ended.into_iter().flatten());
        bytes.push(u8::MAX);
    }

    fn message(&self, message: Message) -> [u8; 6] {
        let id = message.process();
        let token = message.token().map_or(0, |token| self.token(token));
        // What a message ends or refuses is what is smaller than the next number.
        let up_to = |number| self.number(id, number + 1);
        let at = |number| self.number(id, number);
        let process = self.state.process(message);
        let is_newest = |number| u8::from(process.is_waiting() && number + 1 == process.next);
        let [kind, number, one, two] = match message {
            Message::Enqueue { deadline, number, .. } => {
                [0, at(number), deadline, is_newest(number)]
            }
            Message::Sign { number, .. } => [1, at(number), is_newest(number), 0],
            Message::Leave { number, .. } => [2, up_to(number), 0, 0],
            Message::Renew { .. } => [3, 0, 0, 0],
            Message::Release { number, .. } => [4, up_to(number), 0, 0],
            Message::Grant { number, age, lease, .. } => [5, at(number), age, lease],
            Message::Owner { number, left, .. } => [6, at(number), left, 0],
            Message::Unknown { number, .. } => [7, is_newest(number), 0, 0],
            Message::Renewed { .. } => [8, 0, 0, 0],
            Message::Released { .. } => [9, 0, 0, 0],
            Message::NotHeld { was_released, .. } => [10, 0, u8::from(was_released), 0],
        };
        [kind, self.name(id), number, token, one, two]
    }

    fn rest(&self, bytes: &mut Vec<u8>) {
        let left = &self.state.left;
        let flaw = match self.state.flaw {
            None => 0,
            Some(Flaw::SmallToken(_)) => 1,
            Some(Flaw::FalseLoss(_)) => 2,
            Some(Flaw::SilentLoss(_)) => 3,
        };
        let can_start = (0..).take(PROCESSES).flat_map(|id| offered(self.state, id));
        let top = can_start.filter(|token| *token <= self.state.top).max();
        bytes.extend([left.late, left.cancels, left.crashes, left.pauses, left.restarts]);
        bytes.extend([self.state.vacant, flaw, top.map_or(0, |top| 1 + self.token(top))]);
    }
}

/// What a process is, without what others know of it.
fn own(process: &Process, number: impl Fn(Number) -> u8, token: impl Fn(Token) -> u8) -> [u8; 6] {
    if process.is_crashed {
        return [u8::MAX; 6];
    }
    let has_signed = process.is_waiting() && process.has_signed;
    let flags = u8::from(has_signed) | u8::from(process.is_paused) << 1;
    let phase = match process.phase {
        Phase::Idle => [0, 0, 0, 0],
        Phase::Waiting { first, confirming } => {
            let (of, age) = confirming.map_or((u8::MAX, 0), |(of, age)| (token(of), age));
            [1, number(first), of, age]
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
    [flags, kind, one, two, three, 0]
}

fn messages(state: &State) -> impl Iterator<Item = Message> {
    state.prompt.iter().chain(&state.late).copied()
}

/// The numbers of this process that something may still compare, in order.
fn numbers(state: &State, at: usize) -> Vec<Number> {
    let is_of = |process: Id| usize::from(process) == at;
    let signs = messages(state).filter_map(|message| match message {
        Message::Enqueue { number, .. }
        | Message::Sign { number, .. }
        | Message::Grant { number, .. }
        | Message::Owner { number, .. } => Some(number).filter(|_| is_of(message.process())),
        _ => None,
    });
    let positions = state.server.queue.iter().filter(|position| is_of(position.process));
    let lease = state.server.lease.iter().filter(|lease| is_of(lease.owner));
    let mut numbers: Vec<_> = signs
        .chain(positions.map(|position| position.number))
        .chain(lease.map(|lease| lease.number))
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
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
fn can_ask(state: &State, ended: Ended) -> bool {
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

/// The tokens that something names, in order.
fn tokens(state: &State) -> Vec<Token> {
    let alive = state.processes.iter().filter(|process| !process.is_crashed);
    let phases = alive.filter_map(|process| match process.phase {
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
