//! A job that runs by a schedule on every server, and still once for each tick.
//!
//! ```text
//! cargo run --release -p example-scheduled-job
//! ```
//!
//! Three processes run the same schedule, each by a clock of its own: one is 200 ms behind, one 200 ms
//! ahead. Whoever comes first runs the job. `wait = "0s"` and `on_busy = "skip"` have the others leave it
//! alone, and `min_hold` keeps the lock for those who come a little later because their clock says so, even
//! if the job is done by then. `max_hold` ends a job that hangs before it delays the next tick for ever.

mod worker;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use clap::Parser;

use crate::worker::{Plan, schedule};

/// By how much each process's clock is wrong, in milliseconds.
const OFFSETS: [i64; 3] = [-200, 0, 200];

/// Runs a schedule on three servers, and each tick once.
#[derive(Debug, Parser)]
struct Options {
    /// Where the lock lives: sqlite:path, redis://host:port/, …
    #[arg(long, value_name = "URL")]
    backend: Option<String>,
    /// How many ticks, one every two seconds
    #[arg(long, default_value_t = 20)]
    ticks: usize,
    /// What one of the processes is to do; not for people
    #[arg(long, hide = true)]
    plan: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.plan {
        Some(plan) => worker::run(plan).await,
        None => run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scheduled_job: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary directory")?;
    let file = folder.path().join("locks.db").display().to_string();
    let backend = options.backend.clone().unwrap_or_else(|| format!("sqlite:{file}"));
    // Time enough for all to start.
    let ticks = ticks(Utc::now() + chrono::TimeDelta::seconds(2), options.ticks)?;
    let first = *ticks.first().context("no tick was asked for")?;

    let mut processes = Vec::new();
    for (number, offset_ms) in OFFSETS.into_iter().enumerate() {
        let plan = Plan { number, offset_ms, first, ticks: ticks.len(), backend: backend.clone() };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--plan", &serde_json::to_string(&plan)?]).stdout(Stdio::piped());
        processes.push(command.spawn().context("a process cannot be started")?);
    }
    let mut runs: BTreeMap<DateTime<Utc>, Vec<usize>> =
        ticks.into_iter().map(|tick| (tick, vec![])).collect();
    for (number, process) in processes.iter_mut().enumerate() {
        let told = process.stdout.take().context("a process without output")?;
        for tick in BufReader::new(told).lines() {
            let tick = DateTime::parse_from_rfc3339(&tick?)?.with_timezone(&Utc);
            runs.entry(tick).or_default().push(number);
        }
    }
    for process in &mut processes {
        ensure!(process.wait()?.success(), "a process has failed");
    }
    report(&runs)
}

/// The ticks from this moment on.
fn ticks(from: DateTime<Utc>, count: usize) -> Result<Vec<DateTime<Utc>>> {
    let schedule = schedule()?;
    Ok(schedule.iter_after(from).take(count).collect())
}

fn report(runs: &BTreeMap<DateTime<Utc>, Vec<usize>>) -> Result<()> {
    println!("tick      run by the clock that is");
    for (tick, processes) in runs {
        let by: Vec<_> = processes.iter().map(|&number| clock(OFFSETS[number])).collect();
        println!("{}  {}", tick.format("%H:%M:%S"), by.join(" and "));
    }
    let wrong = runs.values().filter(|processes| processes.len() != 1).count();
    println!("{} ticks, {} of them not run exactly once", runs.len(), wrong);
    ensure!(wrong == 0, "{wrong} ticks were not run exactly once");
    Ok(())
}

fn clock(offset_ms: i64) -> String {
    match offset_ms {
        0 => "right".to_owned(),
        late if late < 0 => format!("{} ms behind", -late),
        early => format!("{early} ms ahead"),
    }
}
