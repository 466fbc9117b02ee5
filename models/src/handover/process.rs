//! A process: what it sends, and what it makes of what it hears.

use super::message::{Message, Number, Process as Id, Ticks, Token};
use super::rule::{Rule, Rules};
use super::server::Sent;
use super::{DEADLINE, MAX_AGE, PROVISIONAL, TTL};

/// What became of the renewal of a hold. There is at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    NotSent,
    SentAgo(Ticks),
    Done,
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Idle,
    /// In a wait, whose first sign had this number. A grant whose proof was over when it arrived is renewed before the
    /// body starts: its token, and how long ago the renewal was sent.
    Waiting {
        first: Number,
        confirming: Option<(Token, Ticks)>,
    },
    /// It has accepted a grant. The body runs while there is proof.
    Holding {
        token: Token,
        proof: Ticks,
        renewal: Renewal,
    },
    /// The body has ended. `was_freed`: the server has executed the release, whether or not the process knows.
    Releasing {
        token: Token,
        has_retried: bool,
        has_asked: bool,
        was_freed: bool,
    },
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// How many more times it will want the lock.
    pub waits: u8,
    pub next: Number,
    /// The signs that a proof may count from, each with how long ago it was sent.
    pub sent: Vec<(Number, Ticks)>,
    /// The largest token that it has accepted, or given back.
    pub spent: Token,
    /// Has it signed since the last tick?
    pub has_signed: bool,
    pub is_paused: bool,
    pub is_crashed: bool,
    pub phase: Phase,
}

impl Process {
    pub(super) const fn new(waits: u8) -> Self {
        Self {
            waits,
            next: 1,
            sent: vec![],
            spent: 0,
            has_signed: false,
            is_paused: false,
            is_crashed: false,
            phase: Phase::Idle,
        }
    }

    /// Neither paused nor dead.
    #[must_use]
    pub const fn is_awake(&self) -> bool {
        !self.is_paused && !self.is_crashed
    }

    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    /// For how long it can prove its lease. A dead process polls no body.
    #[must_use]
    pub const fn proof(&self) -> Ticks {
        match self.phase {
            Phase::Holding { proof, .. } if !self.is_crashed => proof,
            _ => 0,
        }
    }

    /// May time pass before it has done anything more?
    #[must_use]
    pub const fn lets_time_pass(&self) -> bool {
        if !self.is_awake() {
            return true;
        }
        match self.phase {
            Phase::Waiting { .. } => self.has_signed,
            Phase::Releasing { has_asked, .. } => has_asked,
            Phase::Idle | Phase::Holding { .. } => true,
        }
    }

    pub(super) fn wait(&mut self, me: Id) -> Sent {
        self.waits -= 1;
        self.phase = Phase::Waiting { first: self.next, confirming: None };
        self.enqueue(me)
    }

    fn enqueue(&mut self, me: Id) -> Sent {
        let number = self.number();
        vec![Message::Enqueue { from: me, number, deadline: DEADLINE }]
    }

    pub(super) fn sign(&mut self, me: Id) -> Sent {
        let number = self.number();
        vec![Message::Sign { from: me, number }]
    }

    fn number(&mut self) -> Number {
        let number = self.next;
        self.next += 1;
        self.sent.push((number, 0));
        self.has_signed = true;
        number
    }

    /// A lease whose renewal is under way is released by its token: once renewed, it is not handed on by a leave.
    pub(super) fn cancel(&mut self, rules: Rules, me: Id) -> Sent {
        let mut sent = vec![Message::Leave { from: me, number: self.next - 1 }];
        if let Phase::Waiting { confirming: Some((token, _)), .. } = self.phase
            && rules.keep(Rule::RenewingIsReleased)
        {
            self.spent = self.spent.max(token);
            sent.push(self.release_of(me, token));
        }
        self.phase = Phase::Idle;
        sent
    }

    pub(super) fn renew(&mut self, me: Id) -> Sent {
        let Phase::Holding { token, renewal, .. } = &mut self.phase else { return vec![] };
        *renewal = Renewal::SentAgo(0);
        vec![Message::Renew { from: me, token: *token }]
    }

    /// Releases the lease for the first time, or once more.
    pub(super) fn release(&mut self, me: Id) -> Sent {
        let (token, has_retried, was_freed) = match self.phase {
            Phase::Holding { token, .. } => (token, false, false),
            Phase::Releasing { token, was_freed, .. } => (token, true, was_freed),
            Phase::Idle | Phase::Waiting { .. } => return vec![],
        };
        self.phase = Phase::Releasing { token, has_retried, has_asked: true, was_freed };
        vec![self.release_of(me, token)]
    }

    /// What a release says of the waits that are over: all of them but the one of the moment.
    fn release_of(&self, me: Id, token: Token) -> Message {
        let number = match self.phase {
            Phase::Waiting { first, .. } => first - 1,
            _ => self.next - 1,
        };
        Message::Release { from: me, token, number }
    }

    /// Looks at the clock: a hold without proof has ended.
    pub(super) fn resume(&mut self, me: Id) -> Sent {
        self.is_paused = false;
        self.end_if_unproved(me)
    }

    fn end_if_unproved(&mut self, me: Id) -> Sent {
        match self.phase {
            Phase::Holding { proof: 0, .. } => self.release(me),
            _ => vec![],
        }
    }

    /// A tick later.
    pub(super) fn tick(&mut self, me: Id) -> Sent {
        for (_, age) in &mut self.sent {
            *age += 1;
        }
        self.sent.retain(|(_, age)| *age < MAX_AGE + PROVISIONAL);
        self.has_signed = false;
        match &mut self.phase {
            Phase::Holding { proof, renewal, .. } => {
                *proof = proof.saturating_sub(1);
                if let Renewal::SentAgo(age) = renewal {
                    *age = (*age + 1).min(TTL);
                }
            }
            Phase::Waiting { confirming: Some((_, age)), .. } => *age = (*age + 1).min(TTL),
            // It gives up: the lease ends by itself.
            Phase::Releasing { has_retried: true, .. } if !self.is_paused => {
                self.phase = Phase::Idle;
            }
            Phase::Releasing { has_asked, .. } => *has_asked = false,
            Phase::Idle | Phase::Waiting { .. } => {}
        }
        if self.is_awake() { self.end_if_unproved(me) } else { vec![] }
    }

    /// Hears a message.
    pub(super) fn hear(&mut self, rules: Rules, message: Message) -> Sent {
        let me = message.process();
        match message {
            Message::Grant { token, number, .. } | Message::Owner { token, number, .. } => {
                if self.may_accept(rules, token, number) {
                    return self.accept(me, token, self.proof_of(rules, message));
                }
                self.give_back(rules, me, token)
            }
            Message::Unknown { number, .. } => {
                let is_newest = self.is_waiting() && number + 1 == self.next;
                if is_newest && rules.keep(Rule::UnknownEnqueuesAnew) {
                    return self.enqueue(me);
                }
                vec![]
            }
            Message::Renewed { token, .. } => {
                self.hear_renewed(token);
                vec![]
            }
            Message::Released { token, .. } | Message::NotHeld { token, .. } => {
                if matches!(self.phase, Phase::Releasing { token: mine, .. } if mine == token) {
                    self.phase = Phase::Idle;
                }
                vec![]
            }
            _ => vec![],
        }
    }

    fn may_accept(&self, rules: Rules, token: Token, number: Number) -> bool {
        let Phase::Waiting { first, .. } = self.phase else { return false };
        let is_new = token > self.spent || !rules.keep(Rule::TokenOnce);
        is_new && (number >= first || !rules.keep(Rule::EchoOfThisWait))
    }

    /// A grant whose proof is over is renewed before the body starts, and the wait goes on meanwhile.
    fn accept(&mut self, me: Id, token: Token, proof: Ticks) -> Sent {
        if proof > 0 {
            self.hold(token, proof, Renewal::NotSent);
            return vec![];
        }
        let Phase::Waiting { confirming, .. } = &mut self.phase else { return vec![] };
        if confirming.is_some_and(|(newest, _)| newest >= token) {
            return vec![];
        }
        *confirming = Some((token, 0));
        vec![Message::Renew { from: me, token }]
    }

    fn hold(&mut self, token: Token, proof: Ticks, renewal: Renewal) {
        self.spent = self.spent.max(token);
        self.phase = Phase::Holding { token, proof, renewal };
    }

    fn proof_of(&self, rules: Rules, grant: Message) -> Ticks {
        let (number, lasts, from_sending) = match grant {
            Message::Grant { number, age, lease, .. } if rules.keep(Rule::ProofFromSending) => {
                (number, age + lease, true)
            }
            Message::Grant { number, lease, .. } => (number, lease, false),
            Message::Owner { number, left, .. } => {
                (number, left, rules.keep(Rule::ReplyFromSending))
            }
            _ => return 0,
        };
        if !from_sending {
            return lasts;
        }
        let is_echo = matches!(grant, Message::Grant { .. });
        let sign = if is_echo && !rules.keep(Rule::ProofFromEchoedSign) {
            self.sent.last()
        } else {
            self.sent.iter().find(|(sent, _)| *sent == number)
        };
        sign.map_or(0, |(_, age)| lasts.saturating_sub(*age))
    }

    fn give_back(&mut self, rules: Rules, me: Id, token: Token) -> Sent {
        let is_in_use = match self.phase {
            Phase::Holding { token: mine, .. } | Phase::Releasing { token: mine, .. } => {
                mine == token
            }
            Phase::Idle | Phase::Waiting { .. } => false,
        };
        if is_in_use || !rules.keep(Rule::UnwantedIsReleased) {
            return vec![];
        }
        if rules.keep(Rule::GivenBackIsSpent) {
            self.spent = self.spent.max(token);
        }
        vec![self.release_of(me, token)]
    }

    fn hear_renewed(&mut self, renewed: Token) {
        match &mut self.phase {
            Phase::Waiting { confirming: Some((token, age)), .. } if *token == renewed => {
                let proof = TTL - *age;
                if proof > 0 {
                    self.hold(renewed, proof, Renewal::Done);
                }
            }
            Phase::Holding { token, proof, renewal } if *token == renewed => {
                if let Renewal::SentAgo(age) = *renewal {
                    *proof = (*proof).max(TTL - age);
                    *renewal = Renewal::Done;
                }
            }
            _ => {}
        }
    }
}
