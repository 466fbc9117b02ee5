//! One of the servers.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use dlock_runtime::{LockError, Registry, distributed_lock};
use serde::{Deserialize, Serialize};

/// Instructions for one process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) offset_ms: i64,
    pub(crate) first: DateTime<Utc>,
    pub(crate) ticks: usize,
    pub(crate) backend: String,
}

/// Every two seconds.
pub(crate) fn schedule() -> Result<Cron> {
    let parser = CronParser::builder().seconds(Seconds::Required).build();
    Ok(parser.parse("*/2 * * * * *")?)
}

/// The job. It prints the tick for which it ran.
#[distributed_lock(
    key = "job:report",
    ttl = "10s",
    on_busy = "skip",
    min_hold = "1200ms",
    max_hold = "8s"
)]
async fn write_report(tick: DateTime<Utc>) -> Result<(), LockError> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    println!("{}", tick.to_rfc3339());
    Ok(())
}

pub(crate) async fn run(plan: &str) -> Result<()> {
    let plan: Plan = serde_json::from_str(plan)?;
    let store = dlock_runtime::connect(&plan.backend).await?;
    let registry = Registry::builder().backend("locks", store).install()?;
    // The time according to this server's clock.
    let now = || Utc::now() + TimeDelta::milliseconds(plan.offset_ms);
    let schedule = schedule()?;
    let mut tick = plan.first;
    for _ in 0..plan.ticks {
        let until = (tick - now()).to_std().unwrap_or_default();
        tokio::time::sleep(until).await;
        write_report(tick).await?;
        tick = schedule.find_next_occurrence(&tick, false)?;
    }
    registry.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
