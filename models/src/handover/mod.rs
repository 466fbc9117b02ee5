//! The hand-over of a lease from process to process in one round trip: the release makes the head of the server's queue
//! the owner, and tells its process.
//!
//! TODO
mod canonical;
mod message;
mod process;
pub mod properties;
mod rule;
mod server;
mod state;
mod steps;

use self::message::Ticks;
pub use self::rule::{Rule, Rules};
pub use self::state::State;
pub use self::steps::Step;

/// How many processes there are.
const PROCESSES: usize = 3;
/// A lease that was renewed, or granted in a direct reply.
const TTL: Ticks = 3;
/// A published grant that was not renewed.
const PROVISIONAL: Ticks = 2;
/// The largest age that a grant states.
const MAX_AGE: Ticks = 2;
/// A waiter that has not signed for longer than this is not granted anything.
const STALE: Ticks = 2;
/// For how long an enqueue is good, and a note is kept.
const DEADLINE: Ticks = 2;

/// What may happen in a schedule, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How often each process wants the lock.
    pub waits: [u8; PROCESSES],
    /// Messages that are late, lost or duplicated.
    pub late: u8,
    /// Waits that are given up.
    pub cancels: u8,
    /// Processes that die.
    pub crashes: u8,
    /// Processes that are stopped, and may go on.
    pub pauses: u8,
    /// Other runs of the server, with its data.
    pub restarts: u8,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    /// The rules that are kept.
    pub rules: Rules,
    /// What may happen.
    pub bounds: Bounds,
}

impl Bounds {
    /// So many waits of each process, and nothing that goes wrong.
    #[must_use]
    pub const fn of(waits: [u8; PROCESSES]) -> Self {
        Self { waits, late: 0, cancels: 0, crashes: 0, pauses: 0, restarts: 0 }
    }
}

impl Handover {
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
}
