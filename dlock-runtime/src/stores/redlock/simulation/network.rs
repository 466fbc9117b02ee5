//! The network: messages that arrive in any order, late, or never.

use rand::RngExt;

use super::client::Client;
use super::world::World;
use super::{QUARANTINE, Rule, SECOND, TOLERANCE, TTL};
use crate::stores::redlock::model::{Answer, Asker, Renewed};

/// What a client asks a node.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Acquire {
        proposed: u64,
    },
    Raise {
        token: u64,
    },
    Renew {
        token: u64,
    },
    /// Undoes a failed round, or releases the lock.
    Release {
        tombstone: Option<bool>,
    },
}

/// What a node answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    /// With the number of the node's grant.
    Acquired(Answer, u64),
    Raised(bool),
    Renewed(Renewed),
    Released,
}

/// What a message carries.
#[derive(Clone, Debug)]
pub(super) enum Cargo {
    Request(Request),
    Answer(Said),
}

/// A message on its way between a client and a node. A request is for the run of the server that it was sent to.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) client: usize,
    pub(super) node: usize,
    pub(super) asker: Asker,
    pub(super) cargo: Cargo,
}

impl World {
    /// Sends a request to a node. A connection to a run that was not greeted begins with a greeting.
    pub(super) fn send(&mut self, client: usize, node: usize, request: Request) {
        let quarantine = if self.keeps(Rule::Quarantine) { QUARANTINE } else { 0 };
        let real = &mut self.servers[node].node;
        let known = &mut self.clients[client].greeted[node];
        if *known != Some(real.run) {
            real.greet(quarantine, false);
            *known = Some(real.run);
        }
        let Client { owner, round, .. } = self.clients[client];
        let asker = Asker { owner, round, run: real.run };
        self.messages.push(Message { client, node, asker, cargo: Cargo::Request(request) });
    }

    pub(super) fn send_to_all(&mut self, client: usize, request: &Request) {
        for node in 0..self.servers.len() {
            self.send(client, node, request.clone());
        }
    }

    /// Delivers any one of the messages.
    pub(super) fn deliver(&mut self) {
        let at = self.rng.random_range(0..self.messages.len());
        let message = self.messages.swap_remove(at);
        match message.cargo {
            // A request to an earlier run was lost with that run.
            Cargo::Request(_) if self.servers[message.node].node.run != message.asker.run => {}
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
        let server = &mut self.servers[node];
        match *request {
            Request::Acquire { proposed } => {
                let is_new = server.node.holder() != Some(asker.owner);
                let answer = server.node.acquire(asker, TTL, proposed, tolerance);
                if matches!(answer, Answer::Granted(_)) && is_new {
                    server.grants.insert(asker.owner, number);
                }
                Said::Acquired(answer, server.grants.get(&asker.owner).copied().unwrap_or(0))
            }
            Request::Raise { token } => Said::Raised(server.node.raise(asker, token)),
            Request::Renew { token } => {
                let is_new = server.node.holder() != Some(asker.owner);
                let answer = server.node.renew(asker, TTL, token);
                if answer != Renewed::NotHeld && is_new {
                    server.grants.insert(asker.owner, number);
                }
                Said::Renewed(answer)
            }
            Request::Release { tombstone } => {
                let tombstone = tombstone.map(|always| (TTL + 60 * SECOND, always));
                server.node.release(asker, tombstone);
                Said::Released
            }
        }
    }
}
