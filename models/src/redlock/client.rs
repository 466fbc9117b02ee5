//! A client: one claim, its rounds, and its hold.

use super::message::{Client as Id, Content, Message, Round, Ticks, Token};
use super::rule::{Rule, Rules};
use super::{NODES, PER_TICK, TTL};

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    NotAsked,
    Silent,
    Refused,
    Granted(Token),
}

/// What became of the renewal. There is at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    NotSent,
    Sent { ago: Ticks, renewed: [bool; NODES] },
    Done { renewed: [bool; NODES] },
}

/// What a client is doing. `since`: how long ago its round began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Idle,
    Asking {
        since: Ticks,
        replies: [Reply; NODES],
    },
    /// It stores its token on the nodes that have a smaller one.
    Writing {
        since: Ticks,
        token: Token,
        replies: [Reply; NODES],
        stored: [bool; NODES],
    },
    Holding {
        token: Token,
        proof: Ticks,
        renewal: Renewal,
    },
}

impl Phase {
    /// The tokens that it knows.
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> {
        let (own, replies) = match *self {
            Self::Idle => (None, None),
            Self::Asking { replies, .. } => (None, Some(replies)),
            Self::Writing { token, replies, .. } => (Some(token), Some(replies)),
            Self::Holding { token, .. } => (Some(token), None),
        };
        let granted = replies.into_iter().flatten().filter_map(|reply| match reply {
            Reply::Granted(token) => Some(token),
            _ => None,
        });
        own.into_iter().chain(granted)
    }
}

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub rounds_left: u8,
    pub round: Round,
    /// How far its clock is ahead.
    pub ahead: Ticks,
    /// The run of each node that it has greeted.
    pub greeted: [u8; NODES],
    pub is_crashed: bool,
    pub has_held: bool,
    pub phase: Phase,
}

fn majority(of: usize) -> usize {
    of / 2 + 1
}

impl Client {
    pub(super) const fn new(rounds_left: u8, ahead: Ticks) -> Self {
        Self {
            rounds_left,
            round: 0,
            ahead,
            greeted: [0; NODES],
            is_crashed: false,
            has_held: false,
            phase: Phase::Idle,
        }
    }

    /// For how long it can prove its hold. A dead client runs no body.
    #[must_use]
    pub const fn proof(&self) -> Ticks {
        match self.phase {
            Phase::Holding { proof, .. } if !self.is_crashed => proof,
            _ => 0,
        }
    }

    pub(super) fn begin(&mut self, runs: [u8; NODES]) {
        self.rounds_left -= 1;
        self.round += 1;
        self.greeted = runs;
        self.phase = Phase::Asking { since: 0, replies: [Reply::NotAsked; NODES] };
    }

    pub(super) fn message(&self, me: Id, node: usize, content: Content) -> Message {
        let node = u8::try_from(node).unwrap_or(u8::MAX);
        Message { client: me, node, round: self.round, content }
    }

    pub(super) fn ask(&mut self, me: Id, node: usize, now: Ticks) -> Message {
        if let Phase::Asking { replies, .. } = &mut self.phase {
            replies[node] = Reply::Silent;
        }
        let proposal = Token::from(now + self.ahead) * PER_TICK;
        self.message(me, node, Content::Acquire { proposal, run: self.greeted[node] })
    }

    /// Have all nodes been asked?
    pub(super) fn can_decide(&self) -> bool {
        match &self.phase {
            Phase::Asking { replies, .. } => !replies.contains(&Reply::NotAsked),
            _ => false,
        }
    }

    /// Ends the round as won, if it is. What has to be sent then.
    pub(super) fn decide(&mut self, rules: Rules, me: Id) -> Option<Vec<Message>> {
        let Phase::Asking { since, replies } = self.phase else { return None };
        let granted = replies.iter().filter_map(|reply| match reply {
            Reply::Granted(token) => Some(*token),
            _ => None,
        });
        let silent = replies.iter().filter(|reply| **reply == Reply::Silent).count();
        let voters = if rules.keep(Rule::MajorityOfAll) { NODES } else { NODES - silent };
        if granted.clone().count() < majority(voters) {
            return None;
        }
        let token = granted.max()?;
        let stored = replies.map(|reply| reply == Reply::Granted(token));
        self.phase = Phase::Writing { since, token, replies, stored };
        let is_behind = |reply: Reply| match reply {
            Reply::Granted(answered) => answered < token,
            Reply::Silent => !rules.keep(Rule::OnlyHeard),
            _ => false,
        };
        let behind = (0..NODES).filter(|node| is_behind(replies[*node]));
        let raise = |node: usize| Content::Raise { token, run: self.greeted[node] };
        Some(behind.map(|node| self.message(me, node, raise(node))).collect())
    }

    /// The token, once a majority has stored it.
    pub(super) fn count(&mut self, rules: Rules) -> Option<Token> {
        let Phase::Writing { since, token, stored, .. } = self.phase else { return None };
        let has_stored = stored.iter().filter(|stored| **stored).count();
        let needs = if rules.keep(Rule::MajorityOfAll) { majority(NODES) } else { 1 };
        if has_stored < needs && rules.keep(Rule::WriteBack) {
            return None;
        }
        let since = if rules.keep(Rule::ProofFromSending) { since } else { 0 };
        let proof = TTL.checked_sub(since).filter(|proof| *proof > 0)?;
        self.phase = Phase::Holding { token, proof, renewal: Renewal::NotSent };
        self.has_held = true;
        Some(token)
    }

    /// Undoes a round that was not won.
    pub(super) fn retract(&mut self, me: Id) -> Vec<Message> {
        let (Phase::Asking { replies, .. } | Phase::Writing { replies, .. }) = self.phase else {
            return vec![];
        };
        self.phase = Phase::Idle;
        let undo = |node: usize| match replies[node] {
            Reply::Granted(_) => Some(Content::Release { always: false }),
            Reply::Silent => Some(Content::Release { always: true }),
            _ => None,
        };
        let undone = (0..NODES).filter_map(|node| Some((node, undo(node)?)));
        undone.map(|(node, content)| self.message(me, node, content)).collect()
    }

    pub(super) fn renew(&mut self, me: Id, runs: [u8; NODES]) -> Vec<Message> {
        let Phase::Holding { token, renewal, .. } = &mut self.phase else { return vec![] };
        *renewal = Renewal::Sent { ago: 0, renewed: [false; NODES] };
        let token = *token;
        self.round += 1;
        self.greeted = runs;
        let renew = |node: usize| Content::Renew { token, run: runs[node] };
        (0..NODES).map(|node| self.message(me, node, renew(node))).collect()
    }

    /// The claim is over.
    pub(super) fn release(&mut self, rules: Rules, me: Id) -> Vec<Message> {
        let is_renewed = match self.phase {
            Phase::Holding { renewal: Renewal::Sent { renewed, .. }, .. }
            | Phase::Holding { renewal: Renewal::Done { renewed }, .. }
                if rules.keep(Rule::TombstoneForRenewal) =>
            {
                renewed
            }
            _ => [true; NODES],
        };
        self.phase = Phase::Idle;
        self.rounds_left = 0;
        self.round += 1;
        let release = |node: usize| Content::Release { always: !is_renewed[node] };
        (0..NODES).map(|node| self.message(me, node, release(node))).collect()
    }

    pub(super) fn hear(&mut self, rules: Rules, message: Message) {
        if message.round != self.round {
            return;
        }
        let node = usize::from(message.node);
        match (&mut self.phase, message.content) {
            (Phase::Asking { replies, .. }, Content::Granted { token }) => {
                replies[node] = Reply::Granted(token);
            }
            (Phase::Asking { replies, .. }, Content::Refused) => replies[node] = Reply::Refused,
            (Phase::Writing { stored, replies, .. }, Content::Raised) => {
                let was_heard = matches!(replies[node], Reply::Granted(_));
                stored[node] |= was_heard || !rules.keep(Rule::OnlyHeard);
            }
            (Phase::Holding { renewal: Renewal::Done { renewed }, .. }, Content::Renewed) => {
                renewed[node] = true;
            }
            (Phase::Holding { proof, renewal, .. }, Content::Renewed) => {
                let Renewal::Sent { ago, renewed } = renewal else { return };
                renewed[node] = true;
                let has_renewed = renewed.iter().filter(|renewed| **renewed).count();
                if has_renewed >= majority(NODES) && *proof > 0 {
                    *proof = (*proof).max(TTL - *ago);
                    *renewal = Renewal::Done { renewed: *renewed };
                }
            }
            _ => {}
        }
    }

    /// A tick later.
    pub(super) fn tick(&mut self) {
        match &mut self.phase {
            Phase::Asking { since, .. } | Phase::Writing { since, .. } => {
                *since = (*since + 1).min(TTL);
            }
            Phase::Holding { proof, renewal, .. } => {
                *proof = proof.saturating_sub(1);
                if let Renewal::Sent { ago, .. } = renewal {
                    *ago = (*ago + 1).min(TTL);
                }
            }
            Phase::Idle => {}
        }
    }
}
