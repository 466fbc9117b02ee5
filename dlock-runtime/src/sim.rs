//! Deterministic simulation: a thousand nights of faults in a minute, and each of them again whenever you like.
//!
//! Feature `sim`, for tests.

mod calls;
mod chance;
pub(crate) mod clock;
mod explore;
mod faults;
mod host;
mod instance;
mod local_clock;
mod machine;
mod network;
mod process;
mod remote;
mod schedule;
mod shrink;
mod store;
pub(crate) mod timer;
mod trace;
mod world;

use std::time::Duration;

pub use explore::{Explorer, Failure, Summary, explore};
pub use faults::FaultOptions;
pub use process::{Killed, Process, process, service};
pub use remote::{Remote, Unanswered};
pub use store::{Store, backend};
pub use trace::Timeline;

use crate::registry::Registry;

/// Simulated time, in nanoseconds.
type Nanos = u64;

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX / 8)
}

/// The registry of the simulated process that runs on this thread.
pub(crate) fn registry() -> Option<Registry> {
    world::try_with(world::World::registry).flatten()
}

/// Adds a line to the timeline of the simulated process that runs on this thread.
pub(crate) fn note_with(text: impl FnOnce() -> String) {
    world::try_with(|world| world.note(world.current, text));
}

/// Waits for this long, by the clock of the process.
///
/// Like `tokio::time::sleep`, which works in a simulation too, but is found at the cost of speed and exactness.
///
/// # Cancel safety
/// Cancel safe.
pub async fn sleep(duration: Duration) {
    crate::timer::sleep(duration).await;
}

/// Lets other processes go on for a moment: here, faults and other processes may come between two steps of a body.
///
/// # Panics
/// Outside of a simulation.
///
/// # Cancel safety
/// Cancel safe.
pub async fn step() {
    calls::step().await;
}

/// The simulated time since the schedule began. No process has a clock that shows it.
///
/// # Panics
/// Outside of a simulation.
#[must_use]
pub fn now() -> Duration {
    Duration::from_nanos(world::with(|world| world.now))
}

/// The number of events in the schedule so far: messages, timers and faults.
///
/// # Panics
/// Outside of a simulation.
#[must_use]
pub fn steps() -> u64 {
    world::with(|world| world.steps)
}

/// Ends all faults: partitions heal, hosts that are paused or down go on, and none begins. A process that is paused goes
/// on when its time has come.
///
/// # Panics
/// Outside of a simulation.
pub fn calm() {
    world::with(world::World::calm);
}

/// Adds a line to the timeline that is printed for a schedule that fails.
///
/// # Panics
/// Outside of a simulation.
pub fn note(text: impl Into<String>) {
    let text = text.into();
    world::with(|world| world.note(world.current, || text));
}

/// A random number less than `limit`, from the seed of the schedule.
///
/// # Panics
/// Outside of a simulation.
#[must_use]
pub fn random(limit: usize) -> usize {
    world::with(|world| world.chance().map_or(0, |chance| chance.below(limit)))
}
