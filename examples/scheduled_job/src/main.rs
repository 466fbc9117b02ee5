//! A job that is scheduled on every server, but runs once per tick.
//!
//! ```text
//! cargo run --release -p example-scheduled-job
//! ```
//!
//! Three processes run the same schedule, each by its own clock: one is 200 ms slow, one 200 ms
//! fast. The first process to reach a tick runs the job. With `on_busy = "skip"`
//! the others skip it. `min_hold` keeps the lock for processes whose clocks reach the tick a little
//! later, even if the job is done by then. `max_hold` stops a job that hangs, so that it does not
//! block later ticks forever.

mod worker;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use clap::Parser;

use crate::worker::{Plan, schedule};

/// How far each process's clock is off, in milliseconds.
const OFFSETS: [i64; 3] = [-200, 0, 200];

/// Runs a schedule on three servers, once per tick.
#[derive(Debug, Parser)]
struct Options {
    /// Where the lock lives: sqlite:path, redis://host:port/, …
    #[arg(long, value_name = "URL")]
    backend: Option<String>,
    /// How many ticks, one every two seconds
    #[arg(long, default_value_t = 20)]
    ticks: usize,
    /// Instructions for a child process; not meant for users
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
    // Enough time for all processes to start.
    let ticks = ticks(Utc::now() + chrono::TimeDelta::seconds(2), options.ticks)?;
    let first = *ticks.first().context("at least one tick is needed")?;

    let mut processes = Vec::new();
    for offset_ms in OFFSETS {
        let plan = Plan { offset_ms, first, ticks: ticks.len(), backend: backend.clone() };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--plan", &serde_json::to_string(&plan)?]).stdout(Stdio::piped());
        processes.push(command.spawn().context("failed to start a process")?);
    }
    let mut runs: BTreeMap<DateTime<Utc>, Vec<usize>> =
        ticks.into_iter().map(|tick| (tick, vec![])).collect();
    for (number, process) in processes.iter_mut().enumerate() {
        let stdout = process.stdout.take().context("stdout is piped")?;
        for tick in BufReader::new(stdout).lines() {
            let tick = DateTime::parse_from_rfc3339(&tick?)?.with_timezone(&Utc);
            runs.entry(tick).or_default().push(number);
        }
    }
    for process in &mut processes {
        ensure!(process.wait()?.success(), "a process failed");
    }
    report(&runs)
}

/// The ticks after this time.
fn ticks(from: DateTime<Utc>, count: usize) -> Result<Vec<DateTime<Utc>>> {
    let schedule = schedule()?;
    Ok(schedule.iter_after(from).take(count).collect())
}

fn report(runs: &BTreeMap<DateTime<Utc>, Vec<usize>>) -> Result<()> {
    println!("tick      run by the server whose clock is");
    for (tick, processes) in runs {
        let by: Vec<_> = processes.iter().map(|&number| clock(OFFSETS[number])).collect();
        println!("{}  {}", tick.format("%H:%M:%S"), by.join(" and "));
    }
    let wrong = runs.values().filter(|processes| processes.len() != 1).count();
    println!("{} ticks, {} not run exactly once", runs.len(), wrong);
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
