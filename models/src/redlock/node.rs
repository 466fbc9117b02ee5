//! A node: what the scripts do with one key.

use super::message::{Client, Content, Message, Round, Ticks, Token};
use super::rule::{Rule, Rules};
use super::{CLIENTS, PER_TICK, QUARANTINE, TOLERANCE, TTL};

/// The lock on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub owner: Client,
    pub round: Round,
    pub token: Token,
    pub left: Ticks,
}

/// A node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub lock: Option<Lock>,
    pub last: Token,
    /// Tombstones: up to which round each owner is gone.
    pub gone: [Round; CLIENTS],
    /// How long it must not count.
    pub quarantine: Ticks,
    pub run: u8,
    /// What it has been told, forgotten or not: up to which round each owner has released. Only the checker looks.
    pub released: [Round; CLIENTS],
}

/// A request acquired or restored a lock although its release had been executed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    Granted,
    Restored,
}

impl Node {
    fn may_count(&self, rules: Rules, run: u8) -> bool {
        (self.quarantine == 0 || !rules.keep(Rule::Quarantine))
            && (self.run == run || !rules.keep(Rule::RunIsNamed))
    }

    /// Executes a request at this time.
    pub fn execute(
        &mut self,
        rules: Rules,
        request: Message,
        now: Ticks,
    ) -> Result<Option<Message>, Late> {
        let answer = match request.content {
            Content::Acquire { proposal, run } => {
                Some(self.acquire(rules, request, proposal, run, now)?)
            }
            Content::Raise { token, run } => {
                self.raise(rules, request, token, run).then_some(Content::Raised)
            }
            Content::Renew { token, run } => {
                self.renew(rules, request, token, run)?.then_some(Content::Renewed)
            }
            Content::Release { always } => {
                self.release(rules, request, always);
                None
            }
            _ => None,
        };
        Ok(answer.map(|content| request.answer(content)))
    }

    /// `acquire.lua`
    fn acquire(
        &mut self,
        rules: Rules,
        request: Message,
        proposal: Token,
        run: u8,
        now: Ticks,
    ) -> Result<Content, Late> {
        let Message { client, round, .. } = request;
        if !self.may_count(rules, run) {
            return Ok(Content::Refused);
        }
        if let Some(lock) = &mut self.lock {
            if lock.owner != client {
                return Ok(Content::Refused);
            }
            lock.round = lock.round.max(round);
            lock.left = TTL;
            return Ok(Content::Granted { token: lock.token });
        }
        if self.gone[usize::from(client)] >= round {
            return Ok(Content::Refused);
        }
        if self.released[usize::from(client)] >= round {
            return Err(Late::Granted);
        }
        let token = self.next_token(rules, proposal, now);
        self.last = token;
        self.lock = Some(Lock { owner: client, round, token, left: TTL });
        Ok(Content::Granted { token })
    }

    fn next_token(&self, rules: Rules, proposal: Token, now: Ticks) -> Token {
        let last = if rules.keep(Rule::LastToken) { self.last + 1 } else { 1 };
        if !rules.keep(Rule::TokenIsTime) {
            return last;
        }
        let time = Token::from(now) * PER_TICK;
        let is_near = proposal.abs_diff(time) <= Token::from(TOLERANCE) * PER_TICK;
        last.max(if is_near || !rules.keep(Rule::Tolerance) { proposal } else { time })
    }

    /// `raise.lua`
    fn raise(&mut self, rules: Rules, request: Message, raised: Token, run: u8) -> bool {
        let is_ours = |lock: &&mut Lock| {
            let owner = lock.owner == request.client || !rules.keep(Rule::RaiseComparesOwner);
            let checks_round =
                rules.keep(Rule::RaiseComparesOwner) && rules.keep(Rule::RaiseComparesRound);
            owner && (lock.round == request.round || !checks_round)
        };
        if !self.may_count(rules, run) {
            return false;
        }
        match self.lock.as_mut().filter(is_ours) {
            Some(lock) => lock.token = lock.token.max(raised),
            None if rules.keep(Rule::RaiseComparesOwner) => return false,
            None => {}
        }
        self.last = self.last.max(raised);
        true
    }

    /// `renew.lua`
    fn renew(
        &mut self,
        rules: Rules,
        request: Message,
        token: Token,
        run: u8,
    ) -> Result<bool, Late> {
        let Message { client, round, .. } = request;
        let gone = self.gone[usize::from(client)];
        match &mut self.lock {
            Some(lock) if lock.owner == client => lock.left = TTL,
            Some(_) => return Ok(false),
            None if self.run != run && rules.keep(Rule::RunIsNamed) => return Ok(false),
            None if gone >= round && rules.keep(Rule::RenewalHeedsTombstone) => return Ok(false),
            None if self.released[usize::from(client)] >= round => return Err(Late::Restored),
            None => {
                self.last = self.last.max(token);
                if rules.keep(Rule::RenewalTombstone) {
                    self.gone[usize::from(client)] = round - 1;
                }
                self.lock = Some(Lock { owner: client, round, token, left: TTL });
            }
        }
        Ok(self.quarantine == 0 || !rules.keep(Rule::QuarantinedRenewal))
    }

    /// `release.lua`
    fn release(&mut self, rules: Rules, request: Message, always: bool) {
        let Message { client, round, .. } = request;
        let is_ours = |lock: &Lock| {
            let is_earlier = lock.round <= round || !rules.keep(Rule::ReleaseComparesRound);
            lock.owner == client && is_earlier
        };
        let found = self.lock.as_ref().is_some_and(is_ours);
        let rule = if always { Rule::RetractedTombstone } else { Rule::Tombstone };
        if (always || !found) && rules.keep(rule) {
            let gone = &mut self.gone[usize::from(client)];
            *gone = (*gone).max(round);
        }
        let released = &mut self.released[usize::from(client)];
        *released = (*released).max(round);
        if found {
            self.lock = None;
        }
    }

    /// A tick later.
    pub fn tick(&mut self) {
        self.quarantine = self.quarantine.saturating_sub(1);
        if let Some(lock) = &mut self.lock {
            lock.left -= 1;
        }
        self.lock = self.lock.filter(|lock| lock.left > 0);
    }

    /// Another run of the server, which has forgotten everything.
    pub fn restart(&mut self) {
        *self = Self {
            quarantine: QUARANTINE,
            run: self.run + 1,
            released: self.released,
            ..Self::default()
        };
    }
}
