//! The server: what its scripts do with one key.

use super::message::{Message, Number, Process, Ticks, Token};
use super::rule::{Rule, Rules};
use super::{DEADLINE, MAX_AGE, PROCESSES, PROVISIONAL, STALE, TTL};

/// The lease of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub owner: Process,
    pub token: Token,
    pub left: Ticks,
    /// The last sign of the owner that counts for this lease: a leave up to a smaller number does not end it.
    pub number: Number,
    pub is_published: bool,
    pub is_renewed: bool,
    /// How long a published grant has gone unanswered.
    pub unanswered: Ticks,
    /// Had its process not signed for long?
    pub is_to_stale: bool,
}

/// A position in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub process: Process,
    pub number: Number,
    /// How long ago the sign with this number was executed.
    pub age: Ticks,
    /// Was that in this run of the server?
    pub is_of_this_run: bool,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub process: Process,
    pub token: Token,
    pub was_released: bool,
}

/// "Gone since this number."
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    pub number: Number,
    pub left: Ticks,
}

/// What the server stores for the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    pub lease: Option<Lease>,
    pub last_token: Token,
    pub queue: Vec<Position>,
    pub gone: [Note; PROCESSES],
    pub ended: Vec<Ended>,
}

/// The messages that a step sends.
pub type Sent = Vec<Message>;

impl Server {
    /// Executes a request.
    pub fn execute(&mut self, rules: Rules, request: Message) -> Sent {
        match request {
            Message::Enqueue { deadline: 0, .. } if rules.keep(Rule::EnqueueDeadline) => vec![],
            Message::Enqueue { from, number, .. } => self.sign(rules, from, number, true),
            Message::Sign { from, number } => {
                let creates = !rules.keep(Rule::OnlyEnqueueCreates);
                self.sign(rules, from, number, creates)
            }
            Message::Leave { from, number } => self.leave(rules, from, number),
            Message::Renew { from, token } => self.renew(rules, from, token),
            Message::Release { from, token, number } => {
                if rules.keep(Rule::ReleaseIsALeave) {
                    self.is_gone(rules, from, number);
                }
                self.release(rules, from, token)
            }
            _ => vec![],
        }
    }

    fn sign(&mut self, rules: Rules, from: Process, number: Number, creates: bool) -> Sent {
        if rules.keep(Rule::GoneNote) && self.gone[usize::from(from)].number >= number {
            return vec![];
        }
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.owner == from) {
            if rules.keep(Rule::SignAdopts) {
                lease.number = lease.number.max(number);
            }
            if !rules.keep(Rule::NothingShortens) {
                lease.left = PROVISIONAL;
            }
            let (token, left) = (lease.token, lease.left);
            return vec![Message::Owner { to: from, token, number, left }];
        }
        let is_known = self.note_sign(from, number, creates);
        let mut sent = vec![];
        if creates || rules.keep(Rule::SignsGrant) {
            sent = self.grant_if_free(rules, Some(from));
        }
        if !is_known {
            sent.push(Message::Unknown { to: from, number });
        }
        sent
    }

    /// Updates or creates the position of this process. False if it has none.
    fn note_sign(&mut self, process: Process, number: Number, creates: bool) -> bool {
        let position = self.queue.iter_mut().find(|position| position.process == process);
        let now = Position { process, number, age: 0, is_of_this_run: true };
        match position {
            // A sign that a later one has overtaken says nothing.
            Some(position) if position.number < number => *position = now,
            None if creates => self.queue.push(now),
            None => return false,
            Some(_) => {}
        }
        true
    }

    /// Makes the first live waiter the owner if there is no lease. The process that asked is told in its reply.
    fn grant_if_free(&mut self, rules: Rules, asking: Option<Process>) -> Sent {
        if self.lease.is_some() {
            return vec![];
        }
        if rules.keep(Rule::StaleHeadsAreDropped) {
            let live = self.queue.iter().position(|position| position.age <= STALE);
            self.queue.drain(..live.unwrap_or(self.queue.len()));
        }
        if self.queue.is_empty() {
            return vec![];
        }
        let head = self.queue.remove(0);
        vec![self.grant(rules, head, asking == Some(head.process))]
    }

    fn grant(&mut self, rules: Rules, head: Position, is_reply: bool) -> Message {
        let Position { process: to, number, .. } = head;
        self.last_token += 1;
        let token = self.last_token;
        let is_short = !is_reply && rules.keep(Rule::ProvisionalGrant);
        let left = if is_short { PROVISIONAL } else { TTL };
        self.lease = Some(Lease {
            owner: to,
            token,
            left,
            number,
            is_published: !is_reply,
            is_renewed: false,
            unanswered: 0,
            is_to_stale: head.age > STALE,
        });
        if is_reply {
            return Message::Owner { to, token, number, left };
        }
        Message::Grant { to, token, number, age: age(rules, head), lease: left }
    }

    /// Removes the positions of this process up to this number, and refuses what comes late.
    fn is_gone(&mut self, rules: Rules, process: Process, number: Number) {
        let is_gone = |position: &Position| {
            position.process == process && is_covered(rules, position.number, number)
        };
        self.queue.retain(|position| !is_gone(position));
        let note = &mut self.gone[usize::from(process)];
        *note = Note { number: note.number.max(number), left: DEADLINE };
    }

    fn leave(&mut self, rules: Rules, from: Process, number: Number) -> Sent {
        self.is_gone(rules, from, number);
        let is_unwanted = |lease: &Lease| {
            let is_provisional = lease.is_published || rules.keep(Rule::LeaveEndsDirectGrant);
            let is_open = is_provisional && !lease.is_renewed;
            lease.owner == from && is_open && is_covered(rules, lease.number, number)
        };
        if rules.keep(Rule::LeaveHandsOn) && self.lease.as_ref().is_some_and(is_unwanted) {
            return self.hand_over(rules);
        }
        vec![]
    }

    fn renew(&mut self, rules: Rules, from: Process, token: Token) -> Sent {
        let is_same = |lease: &&mut Lease| {
            lease.owner == from && (lease.token == token || !rules.keep(Rule::RenewComparesToken))
        };
        let Some(lease) = self.lease.as_mut().filter(is_same) else { return vec![] };
        lease.is_renewed = true;
        lease.left = lease.left.max(TTL);
        vec![Message::Renewed { to: from, token }]
    }

    fn release(&mut self, rules: Rules, from: Process, token: Token) -> Sent {
        let is_same = |lease: &Lease| {
            (lease.owner == from || !rules.keep(Rule::ReleaseComparesOwner))
                && (lease.token == token
                    || !rules.keep(Rule::ReleaseComparesToken)
                    || !rules.keep(Rule::ReleaseComparesOwner))
        };
        if !self.lease.as_ref().is_some_and(is_same) {
            let same = Ended { process: from, token, was_released: true };
            let was_released = rules.keep(Rule::EndIsRecorded) && self.ended.contains(&same);
            return vec![Message::NotHeld { to: from, token, was_released }];
        }
        let mut sent = vec![Message::Released { to: from, token }];
        sent.extend(self.hand_over(rules));
        sent
    }

    fn hand_over(&mut self, rules: Rules) -> Sent {
        self.end_lease(rules, true);
        self.grant_if_free(rules, None)
    }

    fn end_lease(&mut self, rules: Rules, was_released: bool) {
        let Some(Lease { owner, token, .. }) = self.lease.take() else { return };
        let is_kept = |ended: &Ended| rules.keep(Rule::EndOfEachProcess) && ended.process != owner;
        self.ended.retain(is_kept);
        self.ended.push(Ended { process: owner, token, was_released });
    }

    /// A tick later.
    pub fn tick(&mut self, rules: Rules) {
        for position in &mut self.queue {
            position.age = (position.age + 1).min(STALE + 1);
        }
        for note in &mut self.gone {
            note.left = note.left.saturating_sub(1);
            if note.left == 0 {
                *note = Note::default();
            }
        }
        let Some(lease) = &mut self.lease else { return };
        lease.left = lease.left.saturating_sub(1);
        if lease.is_published && !lease.is_renewed {
            // One more than it should be is as bad as two.
            lease.unanswered = (lease.unanswered + 1).min(PROVISIONAL);
        }
        if lease.left == 0 {
            self.end_lease(rules, false);
        }
    }

    /// Another run of the server, with the data of this one.
    pub fn restart(&mut self) {
        for position in &mut self.queue {
            position.is_of_this_run = false;
        }
    }
}

/// Does a leave up to `last` end what has this number?
fn is_covered(rules: Rules, number: Number, last: Number) -> bool {
    number <= last || !rules.keep(Rule::LeaveUpToItsNumber)
}

/// The age that a grant states. Across a restart the clock may have been set, so that any age could come out: here the
/// worst one does.
fn age(rules: Rules, head: Position) -> Ticks {
    match (head.is_of_this_run, rules.keep(Rule::AgeWithinOneRun)) {
        (true, _) => head.age.min(MAX_AGE),
        (false, true) => 0,
        (false, false) => MAX_AGE,
    }
}
