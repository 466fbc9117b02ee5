//! Worker processes: this same program with an order as its argument.
//!
//! A worker prints "ready" or a report of what it has set up, then answers each line that it reads with one.

use std::io::{BufRead, stdin};
use std::time::Duration;

use dlock_benches::program::Program;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;

use crate::{contended, held, waiting};

const FLAG: &str = "--worker";

/// What a worker is to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Order {
    /// Contend for one key.
    Contend(contended::Order),
    /// Hold many keys.
    Hold(held::Order),
    /// Wait for keys that others hold.
    Wait(waiting::Order),
    /// Line up for one key, one task after the other.
    LineUp { url: String },
    /// Hold one key together.
    Share { url: String, tasks: u32 },
    /// Have tasks that do nothing.
    Idle { tasks: u32 },
}

/// The order, if this process is a worker.
pub fn order() -> Option<Order> {
    let mut arguments = std::env::args().skip(1);
    let order = (arguments.next()? == FLAG).then(|| arguments.next())?;
    Some(serde_json::from_str(&order?).expect("an order"))
}

/// Does what the order says until the other end of the pipe is closed.
pub fn work(order: Order) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        match order {
            Order::Contend(order) => contended::work(order).await,
            Order::Hold(order) => held::work(order).await,
            Order::Wait(order) => waiting::wait(order).await,
            Order::LineUp { url } => waiting::line_up(url).await,
            Order::Share { url, tasks } => waiting::share(url, tasks).await,
            Order::Idle { tasks } => waiting::idle(tasks).await,
        }
    });
    // What it holds or waits for goes with the process.
    std::process::exit(0);
}

/// Starts a worker.
pub fn start(order: &Order) -> Program {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg(FLAG).arg(serde_json::to_string(order).expect("plain data"));
    Program::start(command)
}

/// The next line of the other end. Nothing if it is closed.
pub async fn next_line() -> Option<String> {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        (stdin().lock().read_line(&mut line).is_ok_and(|length| length > 0)).then_some(line)
    });
    Some(line.await.ok()??.trim().to_owned())
}

/// Sends a report to the other end.
pub fn report(value: &impl Serialize) {
    println!("{}", serde_json::to_string(value).expect("plain data"));
}

/// A number of a report.
pub fn number(report: &str, name: &str) -> f64 {
    let report: Value = serde_json::from_str(report).expect("a report");
    report[name].as_f64().unwrap_or_else(|| panic!("no {name} in {report}"))
}

/// The CPU time between two readings as a part of one core, in percent.
pub fn percent(before: Duration, after: Duration, of: Duration) -> f64 {
    after.saturating_sub(before).as_secs_f64() / of.as_secs_f64() * 100.0
}
