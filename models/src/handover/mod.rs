//! The hand-over of a lease from process to process in one round trip: the release makes the head of the server's queue
//! the owner, and publishes the grant to its process.
//!
//! # What is modelled
//!
//! One server with one key, and three processes. A process waits (it enqueues, and signs once in each tick), may give up
//! its wait, holds, renews at most once, and releases; a release without an answer is sent once more. What the server
//! executes is in `server.rs`, what a process makes of an answer in `process.rs`; both are to be read beside the
//! protocol's rules, which [`Rule`] lists. A process that has accepted a grant polls its body only while it has proof.
//!
//! These faults happen, each so often as [`Bounds`] say:
//! - A message is late: it arrives at any later time, in any order with others, or never. Or it arrives, and once more
//!   later.
//! - A process dies, or is paused and may go on. The server goes on in another run with its data; the age of a sign of an
//!   earlier run is then whatever does the most harm.
//!
//! # What is abstracted
//!
//! - *Time* is ticks. A lease of the full ttl has three, a provisional one two. All clocks run alike: the allowance for
//!   drift is what makes up for that. A message that is not late takes no time, and what a process has to do in a tick it
//!   does before the next one, unless it is paused or dead. So bounds on time are promises that can be checked like
//!   others: a lock is free for no more ticks than there were late messages.
//! - *Renewals with different ttls* are left out: the signs that would shorten a lease stand for them.
//! - *H1's limit of an age* bounds the harm of a clock that steps within a run, and no clock does here. *H3*, the counting
//!   of receivers in *H4* and *H10* are about traffic, delays and replicas, and are left out, as are readers, permits,
//!   `min_hold` and the passing of a lease inside a process (with its requeue).
//!
//! # What is promised
//!
//! The promises are the constants of [`properties`]. Other properties are situations that have to be reached, so that
//! the bounds are not too small to mean anything.
//!
//! # Bounds
//!
//! Tests explore *every* schedule within their bounds. There is no bound on time or on the number of steps: states are
//! the same if they have the same future (see `canonical.rs`, and `tests/merging.rs`, which checks it).
//!
//! # Reading a counterexample
//!
//! ```text
//!    6. P0 gives up its wait                                    what somebody does, or a fault
//!    7.     P0: leave(1) ... is late                            what becomes of the message that it sent
//!   11.     to P0: grant(token 2, sign 1, age 0, lease 2)       indented: an answer, at once
//!   16. late: P0: release(token 2), gone since 1                a message that was late arrives
//!   17. -- a tick                                               time passes
//! ```
//!
//! Below the steps is the state that they lead to. It is a short schedule, not always the shortest.

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
    pub fn without(self, rule: Rule) -> Self {
        Self { rules: self.rules.without(rule), ..self }
    }
}
