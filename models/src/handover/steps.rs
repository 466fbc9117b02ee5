//! What can happen in a state, and what comes of it.

use std::fmt;

use stateright::{Model, Property};

use super::message::{Message, Process as Id};
use super::process::{Phase, Process, Renewal};
use super::properties::properties;
use super::state::{Flaw, State};
use super::{Handover, PROCESSES};

/// A step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A process begins to wait.
    Wait(Id),
    /// A waiting process signs.
    Sign(Id),
    /// A process gives up its wait.
    Cancel(Id),
    /// A holder renews.
    Renew(Id),
    /// A body ends, or the release of its lease is sent again.
    Release(Id),
    /// A process is stopped.
    Pause(Id),
    /// It goes on.
    Resume(Id),
    /// A process dies.
    Crash(Id),
    /// The server restarts, with its data.
    Restart,
    /// Time passes.
    Tick,
    /// The message that was just sent arrives.
    Arrive(Message),
    /// It will arrive later, or never.
    Delay(Message),
    /// It arrives, and may arrive again.
    Duplicate(Message),
    /// A late message arrives.
    ArriveLate(Message),
}

impl Model for Handover {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.bounds)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        // What a broken promise leads to is of no interest, and a process that waits for ever counts for ever.
        if state.flaw.is_some() || state.vacant > self.most_vacant() {
            return;
        }
        if let Some(message) = state.prompt.first() {
            steps.push(Step::Arrive(*message));
            if state.left.late > 0 {
                steps.extend([Step::Delay(*message), Step::Duplicate(*message)]);
            }
            return;
        }
        state.numbered().for_each(|(id, _)| of_process(state, id, steps));
        let mut late = state.late.clone();
        late.dedup();
        let can_hear =
            |message: &Message| message.is_request() || state.process(*message).is_awake();
        steps.extend(late.into_iter().filter(can_hear).map(Step::ArriveLate));
        if state.left.restarts > 0 {
            steps.push(Step::Restart);
        }
        if state.processes.iter().all(Process::lets_time_pass) {
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

/// What this process can do.
fn of_process(state: &State, id: Id, steps: &mut Vec<Step>) {
    let process = &state.processes[usize::from(id)];
    if process.is_crashed {
        return;
    }
    if process.is_paused {
        steps.push(Step::Resume(id));
        return;
    }
    match process.phase {
        Phase::Idle if process.waits > 0 => steps.push(Step::Wait(id)),
        Phase::Idle => return,
        Phase::Waiting { .. } => {
            if !process.has_signed {
                steps.push(Step::Sign(id));
            }
            if state.left.cancels > 0 {
                steps.push(Step::Cancel(id));
            }
        }
        Phase::Holding { renewal, .. } => {
            if renewal == Renewal::NotSent {
                steps.push(Step::Renew(id));
            }
            steps.push(Step::Release(id));
        }
        Phase::Releasing { has_asked: false, has_retried: false, .. } => {
            steps.push(Step::Release(id));
        }
        Phase::Releasing { .. } => {}
    }
    if state.left.pauses > 0 {
        steps.push(Step::Pause(id));
    }
    if state.left.crashes > 0 {
        steps.push(Step::Crash(id));
    }
}

impl State {
    fn take(&mut self, model: Handover, step: Step) {
        match step {
            Step::Tick => self.tick(model),
            Step::Arrive(message) => {
                self.prompt.remove(0);
                self.arrive(model, message);
            }
            Step::Delay(message) => {
                self.prompt.remove(0);
                self.left.late -= 1;
                self.keep_late(message);
            }
            Step::Duplicate(message) => {
                self.prompt.remove(0);
                self.left.late -= 1;
                self.keep_late(message);
                self.arrive(model, message);
            }
            Step::ArriveLate(message) => {
                let at = self.late.iter().position(|other| *other == message);
                at.map(|at| self.late.remove(at));
                self.arrive(model, message);
            }
            Step::Restart => {
                self.left.restarts -= 1;
                self.server.restart();
            }
            _ => self.act(model, step),
        }
    }

    fn act(&mut self, model: Handover, step: Step) {
        let left = &mut self.left;
        let (id, budget) = match step {
            Step::Cancel(id) => (id, Some(&mut left.cancels)),
            Step::Pause(id) => (id, Some(&mut left.pauses)),
            Step::Crash(id) => (id, Some(&mut left.crashes)),
            Step::Wait(id)
            | Step::Sign(id)
            | Step::Renew(id)
            | Step::Release(id)
            | Step::Resume(id) => (id, None),
            _ => return,
        };
        if let Some(budget) = budget {
            *budget -= 1;
        }
        let process = &mut self.processes[usize::from(id)];
        let sent = match step {
            Step::Wait(_) => process.wait(id),
            Step::Sign(_) => process.sign(id),
            Step::Cancel(_) => process.cancel(model.rules, id),
            Step::Renew(_) => process.renew(id),
            Step::Release(_) => process.release(id),
            Step::Resume(_) => process.resume(id),
            Step::Pause(_) => {
                process.is_paused = true;
                vec![]
            }
            _ => {
                process.is_crashed = true;
                process.is_paused = false;
                self.late.retain(|message| message.is_request() || message.process() != id);
                vec![]
            }
        };
        self.send(sent);
    }

    fn tick(&mut self, model: Handover) {
        let waits = self.processes.iter().any(|process| process.is_awake() && process.is_waiting());
        let is_vacant = self.server.lease.is_none() && waits;
        self.vacant = if is_vacant { (self.vacant + 1).min(model.most_vacant() + 1) } else { 0 };
        self.server.tick(model.rules);
        for message in &mut self.late {
            *message = message.older();
        }
        self.late.sort_unstable();
        for id in (0..).take(PROCESSES) {
            let sent = self.processes[usize::from(id)].tick(id);
            self.send(sent);
        }
    }

    fn arrive(&mut self, model: Handover, message: Message) {
        if message.is_request() {
            let sent = self.server.execute(model.rules, message);
            for reply in &sent {
                self.note_release(*reply);
            }
            self.send(sent);
            return;
        }
        let id = message.process();
        self.judge(message);
        let had_proof = self.process(message).proof() > 0;
        let sent = self.processes[usize::from(id)].hear(model.rules, message);
        self.send(sent);
        if let Phase::Holding { token, proof: 1.., .. } = self.process(message).phase
            && !had_proof
        {
            if token <= self.top {
                self.flaw = Some(Flaw::SmallToken(token));
            }
            self.top = self.top.max(token);
        }
    }

    /// The server has executed a release.
    fn note_release(&mut self, reply: Message) {
        let Message::Released { to, token } = reply else { return };
        let process = &mut self.processes[usize::from(to)];
        if let Phase::Releasing { token: mine, was_freed, .. } = &mut process.phase
            && *mine == token
        {
            *was_freed = true;
        }
    }

    /// Is what a process is told about its release true?
    fn judge(&mut self, message: Message) {
        let Phase::Releasing { token: mine, was_freed, .. } = self.process(message).phase else {
            return;
        };
        let (to, told) = match message {
            Message::NotHeld { to, token, was_released } if token == mine => (to, was_released),
            Message::Released { to, token } if token == mine => (to, true),
            _ => return,
        };
        self.flaw = match (told, was_freed) {
            (false, true) => Some(Flaw::FalseLoss(to)),
            (true, false) => Some(Flaw::SilentLoss(to)),
            _ => self.flaw,
        };
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(id) => write!(f, "P{id} wants the lock"),
            Self::Sign(id) => write!(f, "P{id} signs"),
            Self::Cancel(id) => write!(f, "P{id} gives up its wait"),
            Self::Renew(id) => write!(f, "P{id} renews"),
            Self::Release(id) => write!(f, "P{id} releases"),
            Self::Pause(id) => write!(f, "P{id} is paused"),
            Self::Resume(id) => write!(f, "P{id} goes on"),
            Self::Crash(id) => write!(f, "P{id} crashes"),
            Self::Restart => write!(f, "the server restarts, with its data"),
            Self::Tick => write!(f, "-- a tick"),
            Self::Arrive(message) => write!(f, "    {message}"),
            Self::Delay(message) => write!(f, "    {message} ... is late"),
            Self::Duplicate(message) => write!(f, "    {message}, and once more later"),
            Self::ArriveLate(message) => write!(f, "late: {message}"),
        }
    }
}
