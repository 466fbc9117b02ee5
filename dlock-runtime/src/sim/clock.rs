//! The clocks and random choices of the simulated process that is running on this thread.

use std::time::{Duration, SystemTime};

use super::chance::Chance;
use super::world::{self, World};

/// When the time of day of every simulation begins: a round number of seconds, 1 800 000 000.
const FIRST_DAY: Duration = Duration::from_hours(500_000);

/// Whether a simulated process is running on this thread.
pub(crate) fn is_simulated() -> bool {
    boot().is_some()
}

/// The clock that counts suspends, in nanoseconds.
pub(crate) fn boot() -> Option<u64> {
    world::try_with(World::boot_clock).flatten()
}

pub(crate) fn time_of_day() -> Option<SystemTime> {
    Some(SystemTime::UNIX_EPOCH + FIRST_DAY + Duration::from_nanos(boot()?))
}

/// Draws from the random choices of the process.
pub(crate) fn draw<R>(draw: impl FnOnce(&mut Chance) -> R) -> Option<R> {
    world::try_with(|world| world.chance().map(draw)).flatten()
}
