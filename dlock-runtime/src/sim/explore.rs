//! Running many schedules, and reporting the first that fails.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use super::faults::{Allowed, FaultOptions};
use super::schedule::{self, Ended, Scenario, Settings};
use super::shrink::shrink;
use super::timeline::Timeline;

/// The seed to replay, instead of all others.
const SEED: &str = "DLOCK_SIM_SEED";

/// Runs the schedules of these seeds until one fails, with every fault.
///
/// # Panics
/// If a schedule fails: with its seed, what went wrong, and a timeline of what each process did.
#[track_caller]
pub fn explore<F, Fut>(seeds: Range<u64>, scenario: F)
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Explorer::new(seeds).run(scenario);
}

/// Runs schedules of a scenario.
#[derive(Clone, Debug)]
#[must_use = "an explorer does nothing before `run`"]
pub struct Explorer {
    seeds: Range<u64>,
    threads: usize,
    settings: Settings,
    limit: Option<Duration>,
}

/// What was explored.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// The number of schedules.
    pub schedules: u64,
    /// The number of events in all of them.
    pub steps: u64,
    /// The number of events in the shortest of them.
    pub fewest_steps: u64,
    /// The time that they would have taken.
    pub simulated: Duration,
    /// The time that they took.
    pub took: Duration,
    /// A hash of all that happened. The same seeds give the same hash.
    pub hash: u64,
}

/// A schedule that failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// What went wrong: usually the message of an assertion.
    pub message: String,
    /// What each process did, with no more faults than it takes to fail.
    pub timeline: Timeline,
    /// The number of faults that it takes.
    pub faults: usize,
    /// The number of schedules that were run before.
    pub schedules: u64,
    /// The replay was not the same as the first run.
    pub diverged: bool,
}

impl Explorer {
    /// Creates an explorer of these seeds, with every fault, on every core.
    pub fn new(seeds: Range<u64>) -> Self {
        let settings = Settings {
            faults: FaultOptions::all(),
            max_time: Duration::from_mins(10),
            max_steps: 200_000,
            tokio_timers: true,
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { seeds, threads, settings, limit: None }
    }

    /// Sets which faults there may be.
    pub fn faults(mut self, faults: FaultOptions) -> Self {
        self.settings.faults = faults;
        self
    }

    /// Sets the number of threads. Each runs schedules of its own.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets after which time no further schedule begins.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets the simulated time after which a scenario must have ended; ten minutes if not set.
    pub fn max_simulated(mut self, limit: Duration) -> Self {
        self.settings.max_time = limit;
        self
    }

    /// Declares that no process uses timers of tokio itself, but [`sim::sleep`](super::sleep) instead. That is faster,
    /// and exact.
    pub fn without_tokio_timers(mut self) -> Self {
        self.settings.tokio_timers = false;
        self
    }

    /// Runs the schedules.
    ///
    /// With the environment variable `DLOCK_SIM_SEED`, it replays that seed instead, with all of its faults, and prints the
    /// timeline with every message.
    ///
    /// # Panics
    /// If a schedule fails, with its report.
    #[track_caller]
    pub fn run<F, Fut>(self, scenario: F) -> Summary
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        if let Some(seed) = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()) {
            let (timeline, violation) = self.replay(seed, scenario);
            println!("seed {seed}:\n{timeline:#}");
            assert!(violation.is_none(), "seed {seed}: {}", violation.unwrap_or_default());
            return Summary { schedules: 1, ..Summary::default() };
        }
        match self.try_run(scenario) {
            Ok(summary) => summary,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// Runs the schedules, and returns the first that fails.
    ///
    /// # Errors
    /// The schedule that failed.
    pub fn try_run<F, Fut>(self, scenario: F) -> Result<Summary, Box<Failure>>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let scenario = boxed(scenario);
        let began = Instant::now();
        let search = Search {
            explorer: &self,
            scenario: &scenario,
            next: AtomicU64::new(self.seeds.start),
            began,
            found: Mutex::default(),
        };
        let summaries: Vec<Summary> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(|| search.run())).collect();
            threads.into_iter().map(joined).collect()
        });
        let mut summary = summaries.iter().fold(Summary::default(), Summary::plus);
        summary.took = began.elapsed();
        let found = search.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        match found {
            None => Ok(summary),
            Some((seed, ended)) => {
                let mut failure = shrink(seed, &ended, &self.settings, &scenario);
                failure.schedules = summary.schedules;
                Err(Box::new(failure))
            }
        }
    }

    /// Runs the schedule of one seed. Returns what each process did, and what went wrong.
    #[must_use]
    pub fn replay<F, Fut>(&self, seed: u64, scenario: F) -> (Timeline, Option<String>)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let ended = schedule::run(seed, &self.settings, Allowed::All, true, &boxed(scenario));
        (ended.timeline, ended.violation)
    }
}

/// A search does not panic, since each schedule catches its own.
fn joined(search: ScopedJoinHandle<'_, Summary>) -> Summary {
    search.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn boxed<F, Fut>(scenario: F) -> Scenario
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Arc::new(move || Box::pin(scenario()))
}

/// A search for a schedule that fails, on several threads.
struct Search<'a> {
    explorer: &'a Explorer,
    scenario: &'a Scenario,
    next: AtomicU64,
    began: Instant,
    /// The failure with the smallest seed.
    found: Mutex<Option<(u64, Ended)>>,
}

impl Search<'_> {
    fn run(&self) -> Summary {
        let mut summary = Summary::default();
        while let Some(seed) = self.next_seed() {
            let mut ended = self.run_one(seed);
            summary.add(&ended);
            if ended.violation.is_none() && self.is_checked(seed) {
                let again = self.run_one(seed);
                let differs = again.hash != ended.hash || again.violation.is_some();
                ended.violation =
                    differs.then(|| "two runs of this seed are not the same".to_owned());
            }
            if ended.violation.is_some() {
                self.found(seed, ended);
                break;
            }
        }
        summary
    }

    fn run_one(&self, seed: u64) -> Ended {
        schedule::run(seed, &self.explorer.settings, Allowed::All, false, self.scenario)
    }

    /// Whether this schedule is run twice: some of them, so that a scenario which is not deterministic is found before it
    /// fails.
    fn is_checked(&self, seed: u64) -> bool {
        let number = seed - self.explorer.seeds.start;
        number.is_multiple_of(64) || number.is_power_of_two()
    }

    fn next_seed(&self) -> Option<u64> {
        let is_late = self.explorer.limit.is_some_and(|limit| self.began.elapsed() >= limit);
        if is_late || self.lock().is_some() {
            return None;
        }
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        (seed < self.explorer.seeds.end).then_some(seed)
    }

    fn found(&self, seed: u64, ended: Ended) {
        let mut found = self.lock();
        if found.as_ref().is_none_or(|(other, _)| seed < *other) {
            *found = Some((seed, ended));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(u64, Ended)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Summary {
    fn add(&mut self, ended: &Ended) {
        self.schedules += 1;
        self.steps += ended.steps;
        self.fewest_steps = fewer(self.fewest_steps, ended.steps);
        self.simulated += ended.simulated;
        // In any order, because the threads take turns.
        self.hash = self.hash.wrapping_add(ended.hash);
    }

    fn plus(mut self, other: &Self) -> Self {
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.fewest_steps = fewer(self.fewest_steps, other.fewest_steps);
        self.simulated += other.simulated;
        self.hash = self.hash.wrapping_add(other.hash);
        self
    }
}

/// The smaller number of the two that are not zero: where nothing ran, there is none.
fn fewer(one: u64, other: u64) -> u64 {
    if one == 0 || other == 0 { one.max(other) } else { one.min(other) }
}

/// `1000 schedules with 250000 steps: 5.6 h of simulated time in 1.2 s`.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated.as_secs_f64() / 3_600.0;
        let Self { schedules, steps, took, .. } = self;
        let factor = self.simulated.as_secs_f64() / took.as_secs_f64().max(0.001);
        write!(
            f,
            "{schedules} schedules with {steps} steps: {hours:.1} h of simulated time in {took:.1?}, {factor:.0} times as fast as real time"
        )
    }
}

/// What went wrong, and a timeline: with `{:#}`, with the messages between processes and stores of locks.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, message, timeline, faults, schedules, diverged } = self;
        writeln!(f, "schedule {seed} fails: {message}\n")?;
        writeln!(
            f,
            "    seconds  (│ runs, █ holds a lock, ┆ is paused; #1, #2, … are fencing tokens)\n"
        )?;
        if f.alternate() {
            writeln!(f, "{timeline:#}")?;
        } else {
            writeln!(f, "{timeline}")?;
        }
        match faults {
            0 => write!(f, "It takes no fault, only this order of events. ")?,
            1 => write!(f, "It takes 1 fault. ")?,
            faults => write!(f, "It takes {faults} faults. ")?,
        }
        match schedules {
            1 => writeln!(f, "1 schedule was run.")?,
            schedules => writeln!(f, "{schedules} schedules were run.")?,
        }
        if *diverged {
            writeln!(
                f,
                "The replay was different: the scenario depends on something that the seed does not decide, such as a `HashMap`'s order, `tokio::select!` without `biased`, or the real clock."
            )?;
        }
        write!(f, "Replay it, with all its faults and every message, by {SEED}={seed}.")
    }
}
