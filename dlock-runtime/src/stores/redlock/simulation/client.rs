//! What clients do. The decisions are those of [`Round`] and [`Win`]; the rest is the engine's part.

use std::collections::HashMap;
use std::time::Duration;

use rand::RngExt;

use super::check::Hold;
use super::network::{Request, Said};
use super::world::World;
use super::{Expiry, Rule, VALIDITY};
use crate::owner::OwnerId;
use crate::stores::redlock::model::{Answer, Asker, Renewed};
use crate::stores::redlock::round::{Reply, Round, Verdict, Win, majority};
use crate::token::FencingToken;

/// What a client is doing.
pub(super) enum Phase {
    Idle,
    Asking { round: Round, decided: bool },
    Writing { win: Win, heard: Vec<usize>, asked: Vec<usize> },
    Holding { renewed: usize, renewing_since: u64 },
}

/// A process that acquires, renews and releases the lock.
pub(super) struct Client {
    /// How far its clock differs from true time.
    pub(super) offset: i64,
    pub(super) owner: u64,
    pub(super) round: u64,
    /// The run that it has greeted, for each node.
    pub(super) greeted: Vec<Option<u64>>,
    pub(super) phase: Phase,
    /// The true time at which the round began.
    pub(super) began: u64,
    /// The number of holds that had counted before the round began.
    pub(super) counted_before: usize,
    /// The numbers of the grants that it has heard of, by node.
    pub(super) grants: HashMap<usize, u64>,
    pub(super) token: u64,
    pub(super) valid_until: u64,
}

impl World {
    pub(super) fn hear(&mut self, client: usize, node: usize, asker: Asker, said: Said) {
        let only_heard = self.keeps(Rule::OnlyHeard);
        let me = &mut self.clients[client];
        if (asker.owner, asker.round) != (me.owner, me.round) {
            return;
        }
        match (&mut me.phase, said) {
            (Phase::Asking { round, decided }, Said::Acquired(answer, grant)) => {
                me.grants.insert(node, grant);
                if answer == Answer::Unmarked {
                    me.greeted[node] = None;
                }
                *decided |= round.hear(node, reply(answer));
            }
            (Phase::Writing { win, heard, asked }, Said::Raised(true)) => {
                let counts = heard.contains(&node) || !only_heard;
                if counts && let Some(at) = asked.iter().position(|other| *other == node) {
                    asked.swap_remove(at);
                    win.wrote();
                }
            }
            (Phase::Holding { renewed, renewing_since }, Said::Renewed(Renewed::Counts)) => {
                *renewed += 1;
                if *renewed == majority(self.servers.len()) && self.now < me.valid_until {
                    me.valid_until = *renewing_since + VALIDITY;
                }
            }
            _ => {}
        }
    }

    /// What a client does when it is its turn.
    pub(super) fn act(&mut self, client: usize) {
        match std::mem::replace(&mut self.clients[client].phase, Phase::Idle) {
            Phase::Idle => {
                // A new claim, or a retry of the same one.
                if self.rng.random_bool(0.7) || self.clients[client].owner == 0 {
                    self.clients[client].owner = self.number();
                }
                self.ask(client);
            }
            Phase::Asking { round, decided } => {
                if !decided && self.rng.random_bool(0.85) {
                    self.clients[client].phase = Phase::Asking { round, decided };
                } else {
                    self.conclude(client, &round);
                }
            }
            Phase::Writing { win, heard, asked } => {
                if win.is_stored() {
                    self.count(client, &win, &heard, &asked);
                } else if self.rng.random_bool(0.8) {
                    self.clients[client].phase = Phase::Writing { win, heard, asked };
                } else {
                    self.give_up(client, Some(true));
                }
            }
            Phase::Holding { renewed, renewing_since } => {
                self.hold(client, renewed, renewing_since);
            }
        }
    }

    /// A holder releases the lock, dies, renews, or waits.
    fn hold(&mut self, client: usize, renewed: usize, renewing_since: u64) {
        if self.now >= self.clients[client].valid_until || self.rng.random_bool(0.3) {
            let round = self.number();
            self.clients[client].round = round;
            let is_dead = !self.rng.random_bool(0.7);
            if !is_dead {
                self.send_to_all(client, &Request::Release { tombstone: Some(false) });
            }
            self.clients[client].owner = 0;
        } else if self.rng.random_bool(0.5) {
            let round = self.number();
            self.clients[client].round = round;
            self.clients[client].phase = Phase::Holding { renewed: 0, renewing_since: self.now };
            let token = self.clients[client].token;
            self.send_to_all(client, &Request::Renew { token });
        } else {
            self.clients[client].phase = Phase::Holding { renewed, renewing_since };
        }
    }

    fn ask(&mut self, client: usize) {
        let round = self.number();
        let nodes = self.servers.len();
        let counted_before = self.holds.len();
        let now = self.now;
        let me = &mut self.clients[client];
        me.round = round;
        me.began = now;
        me.counted_before = counted_before;
        me.grants.clear();
        me.phase = Phase::Asking { round: Round::new(nodes), decided: false };
        let proposed = now.checked_add_signed(me.offset).unwrap();
        self.send_to_all(client, &Request::Acquire { proposed });
    }

    fn conclude(&mut self, client: usize, round: &Round) {
        let Verdict::Won(mut win) = round.verdict() else {
            for (node, granted) in round.may_hold().collect::<Vec<_>>() {
                let tombstone = (!granted).then_some(true);
                self.send(client, node, Request::Release { tombstone });
            }
            if self.rng.random_bool(0.2) {
                self.give_up(client, Some(true));
            }
            return;
        };
        let heard: Vec<_> =
            round.may_hold().filter(|(_, granted)| *granted).map(|(node, _)| node).collect();
        let asked = if self.keeps(Rule::OnlyHeard) {
            win.behind().to_vec()
        } else {
            let unheard = (0..self.servers.len()).filter(|node| !heard.contains(node));
            win.behind().iter().copied().chain(unheard).collect()
        };
        while !self.keeps(Rule::WriteBack) && !win.is_stored() {
            win.wrote();
        }
        if win.is_stored() {
            let unstored = win.behind().to_vec();
            return self.count(client, &win, &heard, &unstored);
        }
        for node in &asked {
            self.send(client, *node, Request::Raise { token: win.token().get() });
        }
        self.clients[client].phase = Phase::Writing { win, heard, asked };
    }

    fn give_up(&mut self, client: usize, tombstone: Option<bool>) {
        let round = self.number();
        self.clients[client].round = round;
        self.send_to_all(client, &Request::Release { tombstone });
        self.clients[client].owner = 0;
    }

    /// Counts a hold, unless leases end in time and its validity is over.
    fn count(&mut self, client: usize, win: &Win, heard: &[usize], unstored: &[usize]) {
        let valid_until = self.clients[client].began + VALIDITY;
        if self.expiry == Expiry::InTime && self.now >= valid_until {
            return self.give_up(client, Some(true));
        }
        let me = &mut self.clients[client];
        me.token = win.token().get();
        me.valid_until = valid_until;
        me.phase = Phase::Holding { renewed: 0, renewing_since: self.now };
        let (owner, token, counted_before) = (me.owner, me.token, me.counted_before);
        let counts = |node: &usize| {
            !unstored.contains(node) && (heard.contains(node) || !self.keeps(Rule::OnlyHeard))
        };
        // A node whose answer was not heard has granted all the same. Only that node knows the number.
        let grant = |node: usize| {
            let heard_of = self.clients[client].grants.get(&node);
            Some((node, *heard_of.or(self.servers[node].grants.get(&owner))?))
        };
        let nodes = (0..self.servers.len()).filter(counts).filter_map(grant).collect();
        let hold = Hold { owner, token, nodes };
        self.check(client, &hold, counted_before);
        self.holds.push(hold);
    }
}

fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Granted(token) => Reply::Granted(FencingToken::new(token)),
        Answer::Busy { owner, left } => {
            let owner = OwnerId::from_bytes(u128::from(owner).to_be_bytes());
            Reply::Busy { owner: Some(owner), left: Some(Duration::from_micros(left)) }
        }
        Answer::GivenUp | Answer::Quarantined(_) | Answer::Unmarked => Reply::Absent,
    }
}
