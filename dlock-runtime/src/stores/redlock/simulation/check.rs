//! What every schedule is checked for: tokens that grow, and one holder at a time.

use std::collections::HashMap;

use super::Expiry;
use super::client::{Client, Phase};
use super::world::World;

/// A hold that counted.
pub(super) struct Hold {
    pub(super) owner: u64,
    pub(super) token: u64,
    /// The nodes that counted, each with the number of its grant.
    pub(super) nodes: HashMap<usize, u64>,
}

impl World {
    /// Compares a new hold with all earlier ones.
    pub(super) fn check(&mut self, client: usize, hold: &Hold, counted_before: usize) {
        let in_time = self.expiry == Expiry::InTime;
        for (at, other) in self.holds.iter().enumerate() {
            let is_earlier = in_time || at < counted_before;
            let shared = |node: &usize| Some((hold.nodes.get(node)?, other.nodes.get(node)?));
            let by_nodes = (0..self.servers.len()).filter_map(|node| shared(&node));
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
