//! The protocol under random schedules: requests and answers that are late or lost, leases that end at
//! any time, nodes that are restarted empty or with an older state, clients whose clocks are hours off.
//!
//! The decisions are those of [`Round`] and [`Win`], the nodes those of [`model`](super::model); only the
//! network, the clocks and the engine's part are made up. Each rule of the protocol can be broken, to see
//! that the schedules find out.

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::model::{Answer, Asker, Node, Renewed};
use super::round::{Reply, Round, Verdict, Win, majority};
use crate::owner::OwnerId;
use crate::token::FencingToken;

const MILLISECOND: u64 = 1_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const HOUR: u64 = 3_600 * SECOND;
const TTL: u64 = SECOND;
const VALIDITY: u64 = TTL - TTL / 100 - 2 * MILLISECOND;
const TOLERANCE: u64 = 60 * SECOND;
const QUARANTINE: u64 = 3 * TOLERANCE + SECOND / 2;
const BEGINNING: u64 = 1_700_000_000 * SECOND;

/// What may be broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A token counts only when a majority has stored it.
    WriteBack,
    /// Only nodes whose answers entered the maximum count for that.
    OnlyHeard,
    /// A node that may have forgotten something does not count.
    Quarantine,
    /// A proposal that is far from the node's clock is passed over.
    Tolerance,
}

/// When leases end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    /// After their time. Then there is one holder at a time, and tokens grow in the order of the holds.
    InTime,
    /// At any moment, as if every process and clock stood still whenever it harms. Then tokens grow from a
    /// hold to those that began after it, and in the order in which a node that counts for both has seen
    /// them.
    AnyTime,
}

#[derive(Clone, Debug)]
enum Request {
    Acquire {
        proposed: u64,
    },
    Raise {
        token: u64,
    },
    Renew {
        token: u64,
    },
    /// A failed round is taken back, or a lock is released.
    Release {
        tombstone: Option<bool>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Said {
    /// With the place of the grant in the order of the node's grants.
    Acquired(Answer, u64),
    Raised(bool),
    Renewed(Renewed),
    Released,
}

#[derive(Clone, Debug)]
enum Cargo {
    Request(Request),
    Answer(Said),
}

/// On its way between a client and a node. A request is for the run of the server that it was sent to.
#[derive(Clone, Debug)]
struct Message {
    client: usize,
    node: usize,
    asker: Asker,
    cargo: Cargo,
}

enum Phase {
    Idle,
    Asking { round: Round, decided: bool },
    Writing { win: Win, heard: Vec<usize>, asked: Vec<usize> },
    Holding { renewed: usize, renewing_since: u64 },
}

struct Client {
    /// How far its clock is off.
    offset: i64,
    owner: u64,
    round: u64,
    /// Which run of each node it has greeted.
    greeted: Vec<Option<u64>>,
    phase: Phase,
    /// When the round began: true time, and the number of holds that had counted before.
    began: u64,
    counted_before: usize,
    /// The grants that were heard of, by node.
    grants: HashMap<usize, u64>,
    token: u64,
    valid_until: u64,
}

struct Hold {
    owner: u64,
    token: u64,
    /// The nodes that counted, each with the place of the grant in the order of its grants.
    nodes: HashMap<usize, u64>,
}

struct Position {
    node: Node,
    offset: i64,
    /// An earlier state, for a restart.
    earlier: Option<Node>,
    /// Of each owner: the place of its last grant.
    grants: HashMap<u64, u64>,
}

struct World {
    rng: SmallRng,
    broken: Option<Rule>,
    expiry: Expiry,
    now: u64,
    places: Vec<Position>,
    clients: Vec<Client>,
    messages: Vec<Message>,
    holds: Vec<Hold>,
    numbers: u64,
    violation: Option<String>,
}

impl World {
    fn new(seed: u64, broken: Option<Rule>, expiry: Expiry) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let nodes = if rng.random_bool(0.5) { 3 } else { 5 };
        let half = i64::try_from(TOLERANCE / 2).unwrap();
        let places = (0..nodes).map(|_| {
            let offset = rng.random_range(-half..=half);
            let mut node = Node::new(BEGINNING.checked_add_signed(offset).unwrap(), 1);
            node.greet(QUARANTINE, true);
            Position { node, offset, earlier: None, grants: HashMap::new() }
        });
        let places: Vec<_> = places.collect();
        let hours = i64::try_from(5 * HOUR).unwrap();
        let clients = (0..rng.random_range(2..=4)).map(|_| Client {
            offset: match rng.random_range(0..3) {
                0 => rng.random_range(-hours..=hours),
                1 => rng.random_range(-half..=half),
                _ => rng.random_range(-1_000..=1_000),
            },
            owner: 0,
            round: 0,
            greeted: vec![Some(1); nodes],
            phase: Phase::Idle,
            began: 0,
            counted_before: 0,
            grants: HashMap::new(),
            token: 0,
            valid_until: 0,
        });
        let clients = clients.collect();
        Self {
            rng,
            broken,
            expiry,
            now: BEGINNING,
            places,
            clients,
            messages: vec![],
            holds: vec![],
            numbers: 1,
            violation: None,
        }
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn step(&mut self) {
        match self.rng.random_range(0..1_000) {
            0..700 if !self.messages.is_empty() => self.deliver(),
            700..720 if !self.messages.is_empty() => {
                let lost = self.rng.random_range(0..self.messages.len());
                self.messages.swap_remove(lost);
            }
            720..780 => self.let_time_pass(),
            780..800 if self.expiry == Expiry::AnyTime => self.any_node().node.expire(),
            800..804 => {
                let place = self.any_node();
                place.earlier = Some(place.node.clone());
            }
            804..807 => self.restart(),
            807 => self.any_node().node.empty(),
            _ => {
                let client = self.rng.random_range(0..self.clients.len());
                self.act(client);
            }
        }
    }

    fn any_node(&mut self) -> &mut Position {
        let node = self.rng.random_range(0..self.places.len());
        &mut self.places[node]
    }

    fn restart(&mut self) {
        let run = self.number();
        let keeps = self.rng.random_bool(0.5);
        let place = self.any_node();
        let earlier = place.earlier.take().filter(|_| keeps);
        place.node.restart(run, earlier.as_ref());
    }

    fn let_time_pass(&mut self) {
        self.now += match self.rng.random_range(0..40) {
            0 => QUARANTINE + self.rng.random_range(0..TOLERANCE),
            1 if self.rng.random_bool(0.3) => self.rng.random_range(0..3 * HOUR),
            2..5 => TTL + self.rng.random_range(0..TTL),
            5..8 => self.rng.random_range(0..TTL),
            _ => self.rng.random_range(0..20 * MILLISECOND),
        };
        for place in &mut self.places {
            place.node.now = self.now.checked_add_signed(place.offset).unwrap();
        }
    }

    /// Sends to a node. A connection to another run than was greeted begins with a greeting.
    fn send(&mut self, client: usize, node: usize, request: Request) {
        let quarantine = if self.keeps(Rule::Quarantine) { QUARANTINE } else { 0 };
        let real = &mut self.places[node].node;
        let known = &mut self.clients[client].greeted[node];
        if *known != Some(real.run) {
            real.greet(quarantine, false);
            *known = Some(real.run);
        }
        let Client { owner, round, .. } = self.clients[client];
        let asker = Asker { owner, round, run: real.run };
        self.messages.push(Message { client, node, asker, cargo: Cargo::Request(request) });
    }

    fn send_to_all(&mut self, client: usize, request: &Request) {
        for node in 0..self.places.len() {
            self.send(client, node, request.clone());
        }
    }

    fn deliver(&mut self) {
        let at = self.rng.random_range(0..self.messages.len());
        let message = self.messages.swap_remove(at);
        match message.cargo {
            // What was sent to an earlier run has gone with it.
            Cargo::Request(_) if self.places[message.node].node.run != message.asker.run => {}
            Cargo::Request(request) => {
                let said = self.execute(message.node, message.asker, &request);
                let cargo = Cargo::Answer(said);
                self.messages.push(Message { cargo, ..message });
            }
            Cargo::Answer(said) => self.hear(message.client, message.node, message.asker, said),
        }
    }

    fn execute(&mut self, node: usize, asker: Asker, request: &Request) -> Said {
        let number = self.number();
        let tolerance = if self.keeps(Rule::Tolerance) { TOLERANCE } else { u64::MAX };
        let place = &mut self.places[node];
        match *request {
            Request::Acquire { proposed } => {
                let is_new = place.node.holder() != Some(asker.owner);
                let answer = place.node.acquire(asker, TTL, proposed, tolerance);
                if matches!(answer, Answer::Granted(_)) && is_new {
                    place.grants.insert(asker.owner, number);
                }
                Said::Acquired(answer, place.grants.get(&asker.owner).copied().unwrap_or(0))
            }
            Request::Raise { token } => Said::Raised(place.node.raise(asker, token)),
            Request::Renew { token } => {
                let is_new = place.node.holder() != Some(asker.owner);
                let answer = place.node.renew(asker, TTL, token);
                if answer != Renewed::NotHeld && is_new {
                    place.grants.insert(asker.owner, number);
                }
                Said::Renewed(answer)
            }
            Request::Release { tombstone } => {
                let tombstone = tombstone.map(|always| (TTL + 60 * SECOND, always));
                place.node.release(asker, tombstone);
                Said::Released
            }
        }
    }

    fn hear(&mut self, client: usize, node: usize, asker: Asker, said: Said) {
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
                if *renewed == majority(self.places.len()) && self.now < me.valid_until {
                    me.valid_until = *renewing_since + VALIDITY;
                }
            }
            _ => {}
        }
    }

    /// What a client does when it is its turn.
    fn act(&mut self, client: usize) {
        match std::mem::replace(&mut self.clients[client].phase, Phase::Idle) {
            Phase::Idle => {
                // A new claim, or the same one tried for again.
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
                if self.now >= self.clients[client].valid_until || self.rng.random_bool(0.3) {
                    // Released, or its process has died.
                    let round = self.number();
                    self.clients[client].round = round;
                    if self.rng.random_bool(0.7) {
                        self.send_to_all(client, &Request::Release { tombstone: Some(false) });
                    }
                    self.clients[client].owner = 0;
                } else if self.rng.random_bool(0.5) {
                    let round = self.number();
                    self.clients[client].round = round;
                    self.clients[client].phase =
                        Phase::Holding { renewed: 0, renewing_since: self.now };
                    let token = self.clients[client].token;
                    self.send_to_all(client, &Request::Renew { token });
                } else {
                    self.clients[client].phase = Phase::Holding { renewed, renewing_since };
                }
            }
        }
    }

    fn ask(&mut self, client: usize) {
        let round = self.number();
        let nodes = self.places.len();
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
            let unheard = (0..self.places.len()).filter(|node| !heard.contains(node));
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

    /// A hold counts, if its time is not over.
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
        // A node that was not heard of has granted all the same, at a place that only it knows.
        let grant = |node: usize| {
            let heard_of = self.clients[client].grants.get(&node);
            Some((node, *heard_of.or(self.places[node].grants.get(&owner))?))
        };
        let nodes = (0..self.places.len()).filter(counts).filter_map(grant).collect();
        let hold = Hold { owner, token, nodes };
        self.check(client, &hold, counted_before);
        self.holds.push(hold);
    }

    fn check(&mut self, client: usize, hold: &Hold, counted_before: usize) {
        let in_time = self.expiry == Expiry::InTime;
        for (at, other) in self.holds.iter().enumerate() {
            let is_earlier = in_time || at < counted_before;
            let shared = |node: &usize| Some((hold.nodes.get(node)?, other.nodes.get(node)?));
            let by_nodes = (0..self.places.len()).filter_map(|node| shared(&node));
            let wrong_order =
                by_nodes.into_iter().any(|(mine, its)| (mine > its) != (hold.token > other.token));
            if hold.token == other.token || is_earlier && hold.token < other.token || wrong_order {
                self.violation = Some(format!(
                    "token {} of {} after {} of {}",
                    hold.token, hold.owner, other.token, other.owner
                ));
            }
        }
        if in_time {
            let others = self.clients.iter().enumerate().filter(|(other, _)| *other != client);
            let holds = |other: &Client| {
                matches!(other.phase, Phase::Holding { .. }) && self.now < other.valid_until
            };
            if others.into_iter().any(|(_, other)| holds(other)) {
                self.violation = Some(format!("two holders, one of them {}", hold.owner));
            }
        }
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

/// Runs one schedule: how many holds counted, and what was wrong.
fn run(seed: u64, broken: Option<Rule>, expiry: Expiry) -> (usize, Option<String>) {
    let mut world = World::new(seed, broken, expiry);
    let steps = world.rng.random_range(100..700);
    for _ in 0..steps {
        world.step();
    }
    (world.holds.len(), world.violation)
}

/// For a longer look: `DLOCK_SCHEDULES=10000000 cargo test --release …`.
fn schedules() -> u64 {
    let wanted = std::env::var("DLOCK_SCHEDULES").ok();
    wanted.map_or(60_000, |wanted| wanted.parse().expect("a number of schedules"))
}

fn no_schedule_breaks_the_protocol(expiry: Expiry) {
    let schedules = schedules();
    let (mut counted, mut several) = (0, 0);
    for seed in 0..schedules {
        let (holds, violation) = run(seed, None, expiry);
        assert_eq!(violation, None, "schedule {seed}");
        counted += holds;
        several += u64::from(holds > 1);
    }
    println!("{schedules} schedules, {counted} holds, {several} schedules with more than one");
    // Schedules in which nothing happens prove nothing.
    assert!(several > schedules / 4);
}

/// A renewal takes a lock that its node has not heard of, and the release gives it back, before the acquire
/// arrives over another connection.
#[test]
fn an_acquire_that_its_renewal_and_release_overtook_is_not_granted() {
    let mut node = Node::new(1, 1);
    node.greet(0, true);
    let asker = |round| Asker { owner: 7, round, run: 1 };
    assert_eq!(node.renew(asker(2), TTL, 1), Renewed::Counts);
    assert!(node.release(asker(3), Some((TTL, false))));
    assert_eq!(node.acquire(asker(1), TTL, 1, 0), Answer::GivenUp);
}

#[test]
fn no_schedule_breaks_it_when_leases_end_in_time() {
    no_schedule_breaks_the_protocol(Expiry::InTime);
}

#[test]
fn no_schedule_breaks_it_when_leases_end_at_any_time() {
    no_schedule_breaks_the_protocol(Expiry::AnyTime);
}

/// A schedule finds out that the others do not suffice.
fn it_breaks_without(rule: Rule) {
    let breaks = |seed: &u64| run(*seed, Some(rule), Expiry::AnyTime).1.is_some();
    let found = (0..100_000).find(breaks);
    assert!(found.is_some(), "100,000 schedules found nothing wrong without {rule:?}");
}

#[test]
fn without_the_write_back_it_breaks() {
    it_breaks_without(Rule::WriteBack);
}

#[test]
fn with_nodes_that_count_unheard_it_breaks() {
    it_breaks_without(Rule::OnlyHeard);
}

#[test]
fn with_emptied_nodes_that_count_it_breaks() {
    it_breaks_without(Rule::Quarantine);
}

#[test]
fn with_proposals_of_wild_clocks_it_breaks() {
    it_breaks_without(Rule::Tolerance);
}
