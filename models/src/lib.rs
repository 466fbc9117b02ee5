//! Small models of dlock's protocols, explored exhaustively.
//!
//! A simulation tries schedules at random; these models try *all* of them, within bounds that are small enough to
//! finish and large enough to be interesting. Each rule of a protocol can be left out, and a test for each rule shows
//! which promise breaks without it. So no rule is there by habit, and a rule that somebody wants to simplify later has
//! its counterexample ready.
//!
//! - [`handover`]: a lease goes from process to process by way of the store, in one round trip.
//! - [`redlock`]: leases and fencing tokens on a majority of nodes.
//!
//! The models share no code with the stores. They are read beside them.

pub mod checking;
pub mod handover;
pub mod redlock;
pub mod rules;
