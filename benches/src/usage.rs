//! What this process uses: time, CPU and memory.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The machine's monotonic clock in nanoseconds. All processes of the machine see the same one.
#[must_use]
pub fn monotonic() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The CPU time that this process has used, all threads included.
#[must_use]
pub fn cpu_time() -> Duration {
    Duration::from_nanos(nanoseconds(ClockId::ProcessCPUTime))
}

/// How much memory of this process is in use, in bytes.
///
/// # Panics
/// If there is no `/proc`.
#[must_use]
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number") * u64::try_from(rustix::param::page_size()).unwrap_or(4_096)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let part = |part: i64| u64::try_from(part).unwrap_or_default();
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}
