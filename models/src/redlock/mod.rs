//! Fenced Redlock.
//!
//! TODO
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
    pub const fn without(self, rule: Rule) -> Self {
        Self { rules: self.rules.without(rule), ..self }
    }

    /// How far the clock may go. No state is as late as that, unless tokens have nothing to do with the time.
    const fn ticks(&self) -> Ticks {
        if self.rules.keep(Rule::TokenIsTime) { 60 } else { BEGINNING + QUARANTINE + TTL }
    }
}
