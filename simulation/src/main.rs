//! Runs many schedules: `cargo run -p dlock-simulation --profile bench -- --schedules 1000000`.

use std::process::ExitCode;

use dlock_runtime::sim::Explorer;
use dlock_simulation::programs;
use lexopt::prelude::{Long, ValueExt};

fn main() -> Result<ExitCode, lexopt::Error> {
    let (mut schedules, mut first, mut threads, mut replay) = (10_000, 0, None, None);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("schedules") => schedules = arguments.value()?.parse()?,
            Long("first") => first = arguments.value()?.parse()?,
            Long("threads") => threads = Some(arguments.value()?.parse()?),
            Long("replay") => replay = Some(arguments.value()?.parse()?),
            other => return Err(other.unexpected()),
        }
    }
    let mut explorer = Explorer::new(first..first + schedules).without_tokio_timers();
    if let Some(threads) = threads {
        explorer = explorer.threads(threads);
    }
    if let Some(seed) = replay {
        let (timeline, violation) = explorer.replay(seed, programs::on_leases);
        println!("{timeline}{}", violation.unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    match explorer.try_run(programs::on_leases) {
        Ok(summary) => {
            println!("{summary}, hash {:016x}", summary.hash);
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            println!("{failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}
