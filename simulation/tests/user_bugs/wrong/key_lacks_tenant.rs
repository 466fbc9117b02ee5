//! The key of a tenant's report lacks the tenant, so that one tenant's report is skipped while another's is made.

use dlock_runtime::distributed_lock;
use dlock_runtime::sim::Remote;

use crate::user_bugs::shop::{self, Failed};

#[distributed_lock(
    key = "monthly report",
    ttl = "1s",
    wait = "0s",
    on_busy = "skip",
    backend = "redis"
)]
async fn report(tenant: &'static str, reports: &Remote<Vec<&'static str>>) -> Result<(), Failed> {
    reports.call(format!("store the report of {tenant}"), |reports| reports.push(tenant)).await?;
    Ok(())
}

pub async fn scenario() {
    const TENANTS: [&str; 2] = ["acme", "umbrella"];
    let reports = Remote::new("archive", Vec::new());
    let serve = |reports, number: usize| async move { report(TENANTS[number], &reports).await };
    for reported in shop::on_servers(TENANTS.len(), &reports, serve).await {
        reported.expect("a report is made");
    }
    for tenant in TENANTS {
        let has_report = reports.peek(|reports| reports.contains(&tenant));
        assert!(has_report, "{tenant} has no report");
    }
}
