//! What can happen in a state, and what comes of it.

use std::fmt;

use stateright::{Model, Property};

use super::client::{Client, Phase, Renewal, Reply};
use super::message::{Client as Id, Fate, Message};
use super::node::Node;
use super::properties::properties;
use super::rule::Rule;
use super::state::{Flaw, State};
use super::{NODES, Redlock};

/// What becomes of a message to each node.
type Fates = [Fate; NODES];

/// A step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client begins a round.
    Begin(Id),
    /// Its acquire for this node is sent.
    Ask(Id, usize, Fate),
    /// It has a majority, or not, and acts on it.
    Decide(Id, Fates),
    /// It has waited for long enough, and undoes the round.
    GiveUp(Id, Fates),
    /// A holder renews.
    Renew(Id, Fates),
    /// The claim ends, held or lost.
    Release(Id, Fates),
    /// A client dies.
    Crash(Id),
    /// A node restarts, without its data.
    Restart(usize),
    /// A late message arrives.
    ArriveLate(Message),
    /// Time passes.
    Tick,
}

impl Model for Redlock {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.bounds, !self.rules.keep(Rule::TokenIsTime))]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.flaw.is_some() {
            return;
        }
        (0..).zip(&state.clients).for_each(|(id, _)| of_client(state, id, steps));
        for node in 0..NODES {
            if state.left.restarts > 0 {
                steps.push(Step::Restart(node));
            }
        }
        steps.extend(state.late.iter().copied().map(Step::ArriveLate));
        // Sending to all nodes takes no time: what is sent later is a late message.
        let is_sending = |client: &Client| {
            let is_asking = matches!(client.phase, Phase::Asking { .. });
            is_asking && !client.can_decide() && !client.is_crashed
        };
        if !state.clients.iter().any(is_sending) && state.now < self.ticks() {
            steps.push(Step::Tick);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        next.take(*self, step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties(self.bounds)
    }
}

/// Every fate of messages to all nodes, with at most so many that are late. A release needs no answer.
fn fates(late: u8, has_answer: bool) -> Vec<Fates> {
    let mut all = vec![[Fate::Prompt; NODES]];
    let kinds = [Fate::LateRequest, Fate::LateAnswer];
    let kinds = if has_answer { &kinds[..] } else { &kinds[..1] };
    for node in 0..NODES {
        for at in 0..all.len() {
            let used = all[at].iter().filter(|fate| **fate != Fate::Prompt).count();
            if used < usize::from(late) {
                let before = all[at];
                all.extend(kinds.iter().map(|kind| {
                    let mut fates = before;
                    fates[node] = *kind;
                    fates
                }));
            }
        }
    }
    all
}

/// What this client can do.
fn of_client(state: &State, id: Id, steps: &mut Vec<Step>) {
    let client = &state.clients[usize::from(id)];
    if client.is_crashed {
        return;
    }
    let late = state.left.late;
    match client.phase {
        Phase::Idle if client.rounds_left > 0 => steps.push(Step::Begin(id)),
        Phase::Idle => {}
        Phase::Asking { replies, .. } if !client.can_decide() => {
            let not_asked = |node: &usize| replies[*node] == Reply::NotAsked;
            for node in (0..NODES).filter(not_asked) {
                steps.push(Step::Ask(id, node, Fate::Prompt));
                if late > 0 {
                    let fates = [Fate::LateRequest, Fate::LateAnswer];
                    steps.extend(fates.map(|fate| Step::Ask(id, node, fate)));
                }
            }
        }
        Phase::Asking { .. } => {
            steps.extend(fates(late, true).into_iter().map(|fates| Step::Decide(id, fates)));
        }
        Phase::Writing { .. } => {
            steps.extend(fates(late, false).into_iter().map(|fates| Step::GiveUp(id, fates)));
        }
        Phase::Holding { renewal, proof, .. } => {
            if renewal == Renewal::NotSent && proof > 0 {
                steps.extend(fates(late, true).into_iter().map(|fates| Step::Renew(id, fates)));
            }
            steps.extend(fates(late, false).into_iter().map(|fates| Step::Release(id, fates)));
        }
    }
    let has_begun = !matches!(client.phase, Phase::Idle);
    if state.left.crashes > 0 && has_begun {
        steps.push(Step::Crash(id));
    }
}

impl State {
    fn take(&mut self, model: Redlock, step: Step) {
        match step {
            Step::Begin(id) => {
                let runs = self.runs();
                self.clients[usize::from(id)].begin(runs);
            }
            Step::Ask(id, node, fate) => {
                let message = self.clients[usize::from(id)].ask(id, node, self.now);
                self.send(model, message, fate);
            }
            Step::Decide(id, fates) => self.decide(model, id, fates),
            Step::GiveUp(id, fates) => {
                let sent = self.clients[usize::from(id)].retract(id);
                self.send_all(model, sent, fates);
            }
            Step::Renew(id, fates) => {
                let runs = self.runs();
                let sent = self.clients[usize::from(id)].renew(id, runs);
                self.send_all(model, sent, fates);
            }
            Step::Release(id, fates) => {
                let sent = self.clients[usize::from(id)].release(model.rules, id);
                self.send_all(model, sent, fates);
            }
            Step::Crash(id) => {
                self.left.crashes -= 1;
                self.clients[usize::from(id)].is_crashed = true;
                self.late.retain(|message| message.is_request() || message.client != id);
            }
            Step::Restart(node) => {
                self.left.restarts -= 1;
                self.nodes[node].restart();
            }
            Step::ArriveLate(message) => {
                let at = self.late.iter().position(|other| *other == message);
                at.map(|at| self.late.swap_remove(at));
                self.arrive(model, message);
            }
            Step::Tick => {
                self.now += 1;
                self.nodes.iter_mut().for_each(Node::tick);
                self.clients.iter_mut().for_each(Client::tick);
            }
        }
    }

    fn decide(&mut self, model: Redlock, id: Id, fates: Fates) {
        let client = &mut self.clients[usize::from(id)];
        let sent = match client.decide(model.rules, id) {
            Some(raises) => raises,
            None => client.retract(id),
        };
        self.send_all(model, sent, fates);
        self.count(model, id);
    }

    fn send_all(&mut self, model: Redlock, messages: Vec<Message>, fates: Fates) {
        for message in messages {
            self.send(model, message, fates[usize::from(message.node)]);
        }
    }

    fn send(&mut self, model: Redlock, message: Message, fate: Fate) {
        if fate == Fate::Prompt {
            let answer = self.execute(model, message);
            if let Some(answer) = answer {
                self.arrive(model, answer);
            }
            return;
        }
        self.left.late -= 1;
        let late =
            if fate == Fate::LateRequest { Some(message) } else { self.execute(model, message) };
        if let Some(late) = late {
            self.keep_late(late);
        }
    }

    fn execute(&mut self, model: Redlock, request: Message) -> Option<Message> {
        let node = &mut self.nodes[usize::from(request.node)];
        match node.execute(model.rules, request, self.now) {
            Ok(answer) => answer,
            Err(late) => {
                self.flaw = Some(Flaw::Late(late));
                None
            }
        }
    }

    fn arrive(&mut self, model: Redlock, message: Message) {
        if message.is_request() {
            let answer = self.execute(model, message);
            if let Some(answer) = answer {
                self.arrive(model, answer);
            }
            return;
        }
        let client = &mut self.clients[usize::from(message.client)];
        if !client.is_crashed {
            client.hear(model.rules, message);
            self.count(model, message.client);
        }
    }

    /// Notes a hold that has come to count.
    fn count(&mut self, model: Redlock, id: Id) {
        let counted = self.clients[usize::from(id)].count(model.rules);
        let Some(token) = counted else { return };
        if token <= self.top {
            self.flaw = Some(Flaw::SmallToken(token));
        }
        self.top = self.top.max(token);
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(id) => write!(f, "C{id} begins a round"),
            Self::Ask(id, node, fate) => write!(f, "C{id} asks N{node} ({fate:?})"),
            Self::Decide(id, fates) => write!(f, "C{id} decides, and sends {fates:?}"),
            Self::GiveUp(id, fates) => write!(f, "C{id} undoes its round, and sends {fates:?}"),
            Self::Renew(id, fates) => write!(f, "C{id} renews {fates:?}"),
            Self::Release(id, fates) => write!(f, "C{id} releases {fates:?}"),
            Self::Crash(id) => write!(f, "C{id} crashes"),
            Self::Restart(node) => write!(f, "N{node} restarts, without its data"),
            Self::ArriveLate(message) => write!(f, "late: {message}"),
            Self::Tick => write!(f, "-- a tick"),
        }
    }
}
