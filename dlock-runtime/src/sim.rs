//! Deterministic simulation: a thousand nights of faults in a minute, and each of them again whenever you like.
//!
//! Feature `sim`, for tests. The guide [Simulation](crate::guide::simulation) is the place to begin.

mod calls;
pub(crate) mod chance;
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
mod timeline;
pub(crate) mod timer;
mod trace;
mod world;

use std::time::Duration;

pub use explore::{Explorer, Failure, Summary, explore};
pub use faults::FaultOptions;
pub use process::{Killed, Process, process, service};
pub use remote::{Remote, Unanswered};
pub use store::{Store, backend};
pub use timeline::Timeline;

use crate::error::LostReason;
use crate::key::LockKey;
use crate::registry::Registry;
use crate::token::FencingToken;
use timeline::Kind;

/// Simulated time, in nanoseconds.
type Nanos = u64;

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX / 8)
}

/// The registry of the simulated process that runs on this thread.
pub(crate) fn registry() -> Option<Registry> {
    world::try_with(world::World::registry).flatten()
}

/// Notes that the simulated process that runs on this thread has acquired a lock.
pub(crate) fn note_acquired(key: &LockKey, token: FencingToken, ttl: Duration) {
    note_as(|| {
        let kind = Kind::Acquires { key: key.to_string(), token: token.get() };
        (kind, format!("acquires {key} for {ttl:?}, token {token}"))
    });
}

/// Notes that it has not acquired a lock.
pub(crate) fn note_refused(key: &LockKey, outcome: &str) {
    note_as(|| (Kind::Other, format!("does not acquire {key}: {outcome}")));
}

/// Notes that it has released a lock, or lost it.
pub(crate) fn note_left(key: &LockKey, token: FencingToken, lost: Option<LostReason>) {
    note_as(|| {
        let kind = Kind::Leaves { key: key.to_string(), token: token.get() };
        let text = match lost {
            Some(reason) => format!("loses {key}, token {token}: {reason}"),
            None => format!("releases {key}, token {token}"),
        };
        (kind, text)
    });
}

fn note_as(note: impl FnOnce() -> (Kind, String)) {
    world::try_with(|world| {
        if world.trace.is_recording() {
            let (kind, text) = note();
            world.note_as(kind, world.current, || text);
        }
    });
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

/// When this process was paused last, and when it went on, in simulated time: both zero if it never was. What it knew
/// before is as old as that. Pauses less than two seconds apart count as one.
///
/// # Panics
/// Outside of a simulation.
#[must_use]
pub fn last_pause() -> (Duration, Duration) {
    let (began, ended) = world::with(world::World::last_pause);
    (Duration::from_nanos(began), Duration::from_nanos(ended))
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
