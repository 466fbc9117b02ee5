//! Runs many schedules: `cargo run -p dlock-simulation --profile bench -- --schedules 1000000`.

use std::pin::Pin;
use std::process::ExitCode;

use dlock_runtime::sim::Explorer;
use dlock_simulation::late_renewals::late_renewals;
use dlock_simulation::lost_holds::lost_holds;
use dlock_simulation::passing::passing;
use dlock_simulation::programs;
use dlock_simulation::waiting_sets::waiting_sets;
use lexopt::prelude::{Long, ValueExt};

/// A scenario, by the name of its store or of what it tries.
type Scenario = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()> + Send>>);

const SCENARIOS: &[Scenario] = &[
    ("leases", || Box::pin(programs::on_leases())),
    ("line", || Box::pin(programs::on_leases_with_a_line())),
    ("queue", || Box::pin(programs::on_queue())),
    ("session", || Box::pin(programs::on_sessions())),
    ("majority", || Box::pin(programs::on_majority())),
    ("late-renewals", || Box::pin(late_renewals())),
    ("lost-holds", || Box::pin(lost_holds())),
    ("waiting-sets", || Box::pin(waiting_sets())),
    ("passing", || Box::pin(passing())),
];

/// What the command line asks for.
struct Arguments {
    /// On all stores together.
    schedules: u64,
    first: u64,
    threads: Option<usize>,
    replay: Option<u64>,
    /// All stores by turns, if it is not named.
    store: Option<String>,
}

fn main() -> Result<ExitCode, lexopt::Error> {
    let arguments = Arguments::read()?;
    let is_wanted = |name: &str| arguments.store.as_ref().is_none_or(|store| store == name);
    let wanted: Vec<_> = SCENARIOS.iter().filter(|(name, _)| is_wanted(name)).collect();
    if wanted.is_empty() {
        let names: Vec<_> = SCENARIOS.iter().map(|(name, _)| *name).collect();
        return Err(format!("--store is one of {}", names.join(", ")).into());
    }
    let schedules = arguments.schedules / wanted.len() as u64;
    let passed = wanted.iter().all(|scenario| arguments.run(schedules, scenario));
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Arguments {
    fn read() -> Result<Self, lexopt::Error> {
        let mut read =
            Self { schedules: 10_000, first: 0, threads: None, replay: None, store: None };
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("schedules") => read.schedules = arguments.value()?.parse()?,
                Long("first") => read.first = arguments.value()?.parse()?,
                Long("threads") => read.threads = Some(arguments.value()?.parse()?),
                Long("replay") => read.replay = Some(arguments.value()?.parse()?),
                Long("store") => read.store = Some(arguments.value()?.parse()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(read)
    }

    /// Runs the schedules on one store. False if one of them fails.
    fn run(&self, schedules: u64, &(name, scenario): &Scenario) -> bool {
        let seeds = self.first..self.first + schedules;
        let mut explorer = Explorer::new(seeds).without_tokio_timers();
        if let Some(threads) = self.threads {
            explorer = explorer.threads(threads);
        }
        if let Some(seed) = self.replay {
            let (timeline, violation) = explorer.replay(seed, scenario);
            println!("{name}, seed {seed}:\n{timeline}{}", violation.unwrap_or_default());
            return true;
        }
        match explorer.try_run(scenario) {
            Ok(summary) => {
                println!("{name}: {summary}, hash {:016x}", summary.hash);
                true
            }
            Err(failure) => {
                println!("{name}: {failure:#}");
                false
            }
        }
    }
}
