//! The nodes, the clients and the clocks, and the events that may happen at any time.

use std::collections::HashMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::check::Hold;
use super::client::{Client, Phase};
use super::network::Message;
use super::{BEGINNING, Expiry, HOUR, MILLISECOND, QUARANTINE, Rule, TOLERANCE, TTL};
use crate::stores::redlock::model::Node;

/// A node, and what happens to it.
pub(super) struct Server {
    pub(super) node: Node,
    pub(super) offset: i64,
    /// An earlier state, which a restart may bring back.
    pub(super) earlier: Option<Node>,
    /// The number of the last grant to each owner. Numbers grow in the order of the grants.
    pub(super) grants: HashMap<u64, u64>,
}

/// Everything that a schedule changes.
pub(super) struct World {
    pub(super) rng: SmallRng,
    pub(super) broken: Option<Rule>,
    pub(super) expiry: Expiry,
    pub(super) now: u64,
    pub(super) servers: Vec<Server>,
    pub(super) clients: Vec<Client>,
    pub(super) messages: Vec<Message>,
    pub(super) holds: Vec<Hold>,
    pub(super) numbers: u64,
    pub(super) violation: Option<String>,
}

impl World {
    pub(super) fn new(seed: u64, broken: Option<Rule>, expiry: Expiry) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let nodes = if rng.random_bool(0.5) { 3 } else { 5 };
        let half = i64::try_from(TOLERANCE / 2).unwrap();
        let servers = (0..nodes).map(|_| {
            let offset = rng.random_range(-half..=half);
            let mut node = Node::new(BEGINNING.checked_add_signed(offset).unwrap(), 1);
            node.greet(QUARANTINE, true);
            Server { node, offset, earlier: None, grants: HashMap::new() }
        });
        let servers: Vec<_> = servers.collect();
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
            servers,
            clients,
            messages: vec![],
            holds: vec![],
            numbers: 1,
            violation: None,
        }
    }

    /// Is this rule in force?
    pub(super) fn keeps(&self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// One random event.
    pub(super) fn step(&mut self) {
        match self.rng.random_range(0..1_000) {
            0..700 if !self.messages.is_empty() => self.deliver(),
            700..720 if !self.messages.is_empty() => {
                let lost = self.rng.random_range(0..self.messages.len());
                self.messages.swap_remove(lost);
            }
            720..780 => self.let_time_pass(),
            780..800 if self.expiry == Expiry::AnyTime => self.any_server().node.expire(),
            800..804 => {
                let server = self.any_server();
                server.earlier = Some(server.node.clone());
            }
            804..807 => self.restart(),
            807 => self.any_server().node.empty(),
            _ => {
                let client = self.rng.random_range(0..self.clients.len());
                self.act(client);
            }
        }
    }

    fn any_server(&mut self) -> &mut Server {
        let node = self.rng.random_range(0..self.servers.len());
        &mut self.servers[node]
    }

    fn restart(&mut self) {
        let run = self.number();
        let keeps = self.rng.random_bool(0.5);
        let server = self.any_server();
        let earlier = server.earlier.take().filter(|_| keeps);
        server.node.restart(run, earlier.as_ref());
    }

    fn let_time_pass(&mut self) {
        self.now += match self.rng.random_range(0..40) {
            0 => QUARANTINE + self.rng.random_range(0..TOLERANCE),
            1 if self.rng.random_bool(0.3) => self.rng.random_range(0..3 * HOUR),
            2..5 => TTL + self.rng.random_range(0..TTL),
            5..8 => self.rng.random_range(0..TTL),
            _ => self.rng.random_range(0..20 * MILLISECOND),
        };
        for server in &mut self.servers {
            server.node.now = self.now.checked_add_signed(server.offset).unwrap();
        }
    }
}
