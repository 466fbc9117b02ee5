//! A server's process and all its descendants. Only the process itself is our child, so the
//! descendants are found and watched through `/proc`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to stop or exit.
const LIMIT: Duration = Duration::from_mins(1);

/// Stops a process and its descendants, and returns them, the process itself first. When this
/// returns, all are stopped, so none can start another.
pub fn freeze(root: Pid) -> Vec<Pid> {
    let mut frozen = Vec::new();
    let mut next = vec![root];
    while !next.is_empty() {
        signal(&next, Signal::STOP);
        assert!(reached(&next, "TtZX"), "{next:?} did not stop");
        frozen.append(&mut next);
        next = children_of(&frozen);
        next.retain(|child| !frozen.contains(child));
    }
    frozen
}

/// Resumes the processes.
pub fn thaw(processes: &[Pid]) {
    signal(processes, Signal::CONT);
}

/// Kills the processes.
pub fn kill(processes: &[Pid]) {
    signal(processes, Signal::KILL);
}

/// Waits until the processes have ended. A zombie counts as ended: it has neither memory nor a
/// port.
pub fn wait_for_end(processes: &[Pid]) {
    assert!(reached(processes, "ZX"), "{processes:?} did not end");
}

/// The CPU time that a process and its descendants have used so far, those included that have ended.
///
/// # Panics
/// If that is not the id of a process.
#[must_use]
pub fn cpu_time(root: u32) -> Duration {
    let root = i32::try_from(root).ok().and_then(Pid::from_raw).expect("a process id");
    let mut processes = vec![root];
    let mut next = 0;
    while next < processes.len() {
        let children = children_of(&processes[next..=next]);
        processes.extend(children);
        next += 1;
    }
    let ticks: u64 = processes.into_iter().map(ticks).sum();
    // Ten milliseconds on Linux.
    let tick = Duration::from_secs(1) / u32::try_from(clock_ticks_per_second()).unwrap_or(100);
    tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// The clock ticks that a process has used, in user mode and in the kernel, and those of its children that
/// have ended: the fields from the fourteenth on.
fn ticks(process: Pid) -> u64 {
    let line = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    let line = line.unwrap_or_default();
    let Some((_, fields)) = line.rsplit_once(')') else { return 0 };
    let ticks = fields.split_whitespace().skip(11).take(4);
    ticks.filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn signal(processes: &[Pid], signal: Signal) {
    for &process in processes {
        // A process that has exited meanwhile is not an error.
        let _ = kill_process(process, signal);
    }
}

/// Waits until every thread of every process is in one of these states, or gone.
fn reached(processes: &[Pid], states: &str) -> bool {
    let began = Instant::now();
    while !processes.iter().all(|&process| all_threads_are(process, states)) {
        if began.elapsed() > LIMIT {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn all_threads_are(process: Pid, states: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()));
    let mut threads = threads.into_iter().flatten().flatten();
    threads.all(|thread| stat(&thread.path()).is_none_or(|(state, _)| states.contains(state)))
}

fn children_of(parents: &[Pid]) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let children = entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let (_, parent) = stat(&entry.path())?;
        parents.contains(&parent?).then(|| Pid::from_raw(id))?
    });
    children.collect()
}

/// The state and the parent of a process or thread.
fn stat(folder: &Path) -> Option<(char, Option<Pid>)> {
    let line = fs::read_to_string(folder.join("stat")).ok()?;
    // The name may contain anything, so the fields are counted from its end: `1 (name) S 0 ...`.
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, Pid::from_raw(fields.next()?.parse().ok()?)))
}
