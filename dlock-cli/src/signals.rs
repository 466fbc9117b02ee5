//! Signals that were ignored when this program was started stay ignored, as `nohup` and shells expect.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::Signal;

/// What a service manager, a shell or a terminal sends to a job.
pub const OF_A_JOB: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// Is this signal ignored?
#[cfg(target_os = "linux")]
pub fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

#[cfg(not(target_os = "linux"))]
pub fn is_ignored(_: Signal) -> bool {
    false
}

/// From now on these do not end this process. A program that it becomes has their defaults again. If ends of children were
/// ignored, nobody could wait for them.
pub fn survive_those_of_a_job() {
    for signal in
        OF_A_JOB.into_iter().filter(|signal| !is_ignored(*signal)).chain([Signal::SIGCHLD])
    {
        let _ = signal_hook::flag::register(signal as i32, Arc::new(AtomicBool::new(false)));
    }
}
