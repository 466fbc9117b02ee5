//! Fenced Redlock: leases and fencing tokens on a majority of nodes.
//!
//! # What is modelled
//!
//! Three nodes and up to three clients that want one key. `node.rs` is what the scripts of the store do, `client.rs` what
//! its rounds do: a client asks all nodes, decides, writes its token back where it is smaller, holds, renews at most once,
//! and releases; or it undoes its round and may try again. [`Rule`] lists what each of them takes care of.
//!
//! These faults happen, each so often as [`Bounds`] say: a request or an answer is late (it arrives at any later time, in
//! any order, or never), a client dies, a node restarts and has forgotten everything. Nothing forces a client to go on, so
//! that each may be paused at any time, for any time.
//!
//! # What is abstracted
//!
//! - *Time* is ticks: two for a lease, three for the quarantine (a lease, and three times the tolerance of one tick).
//!   Clocks run alike, but the proposals of the second client are ahead by the tolerance, and those of the last one by
//!   more. A token is the time with room for a few tokens in each tick.
//! - A claim has one owner id, and each client has one claim. Tombstones stay until their node forgets them.
//! - Late requests survive the restart of their node, which is more than a connection would let them.
//! - The answers to a release, revocation, `min_hold` and listing are left out.
//! - *Leases that end early*, because a node's clock steps, are left out. Then several clients may hold at once and only
//!   the order of their tokens is promised. Three rules are for that order, and the tests say so. The random simulation
//!   in the store's own tests has such schedules.
//!
//! # What is promised
//!
//! The promises are the constants of [`properties`]. Other properties are situations that have to be reached, so that
//! the bounds are not too small to mean anything. A hold counts once a majority has stored its token; then the token has
//! to be larger than that of every hold that counted before.
//!
//! # Bounds
//!
//! Tests explore *every* schedule within their bounds. Time is not bounded: states are the same if they have the same
//! future (see `canonical.rs`, and `tests/merging.rs`, which checks it).
//!
//! # Reading a counterexample
//!
//! Each step is what a client does, with what becomes of its message to each node (`Prompt`: executed and answered at
//! once), or a fault, a tick, or the arrival of a late message. Below the steps is the state that they lead to.

mod canonical;
mod client;
mod message;
mod node;
pub mod properties;
mod rule;
mod state;
mod steps;

use self::message::{Ticks, Token};
pub use self::rule::{Rule, Rules};
pub use self::state::State;
pub use self::steps::Step;

const NODES: usize = 3;
const CLIENTS: usize = 3;
/// The length of a lease.
const TTL: Ticks = 2;
/// How far a proposal may be off.
const TOLERANCE: Ticks = 1;
/// How long a node must not count after a restart: a lease, and three times the tolerance.
const QUARANTINE: Ticks = 3;
/// How far each client's clock is ahead: the second one's within the tolerance, the last one's beyond it.
const SKEWS: [Ticks; CLIENTS] = [0, 1, 6];
/// More tokens than can be drawn in a tick.
const PER_TICK: Token = 6;
/// How many ticks ago the oldest tokens were drawn that new ones are compared with: longer than a lease and its renewal.
const OLDEST: Ticks = 6;
/// The time at the beginning: no token at all is older than any.
const BEGINNING: Ticks = OLDEST + 1;

/// What may happen in a schedule, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many rounds each client's claim has.
    pub rounds: [u8; CLIENTS],
    /// Messages that are late or lost.
    pub late: u8,
    /// Clients that die.
    pub crashes: u8,
    /// Nodes that restart without their data.
    pub restarts: u8,
}

impl Bounds {
    /// So many rounds of each client, and nothing that goes wrong.
    #[must_use]
    pub const fn of(rounds: [u8; CLIENTS]) -> Self {
        Self { rounds, late: 0, crashes: 0, restarts: 0 }
    }
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Redlock {
    /// The rules that are kept.
    pub rules: Rules,
    /// What may happen.
    pub bounds: Bounds,
}

impl Redlock {
    /// All rules, and faults within these bounds.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self { rules: Rules::ALL, bounds }
    }

    /// The same without this rule.
    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Self { rules: self.rules.without(rule), ..self }
    }

    /// How far the clock may go. No state is as late as that, unless tokens have nothing to do with the time.
    fn ticks(&self) -> Ticks {
        if self.rules.keep(Rule::TokenIsTime) { 60 } else { BEGINNING + QUARANTINE + TTL }
    }
}
