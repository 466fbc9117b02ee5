//! Where metrics and logs go.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tracing_subscriber::EnvFilter;

/// The buckets of what is measured in seconds. Without buckets the exporter computes quantiles in each process, and
/// those of several processes cannot be put together.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Serves the metrics over HTTP, and returns where.
pub(crate) fn serve_metrics(listen: SocketAddr) -> Result<SocketAddr> {
    let address = free(listen).with_context(|| listen.to_string())?;
    PrometheusBuilder::new()
        .set_buckets(&BUCKETS)?
        // Of blame only the sum is used, and it has a series for each holder: one bucket instead of fourteen.
        .set_buckets_for_metric(Matcher::Full("dlock_blame_seconds".to_owned()), &[1.0])?
        .with_http_listener(address)
        .install()
        .with_context(|| address.to_string())?;
    Ok(address)
}

/// The address with a free port in place of port 0, because the exporter does not tell which one it got.
fn free(listen: SocketAddr) -> std::io::Result<SocketAddr> {
    match listen.port() {
        0 => TcpListener::bind(listen)?.local_addr(),
        _ => Ok(listen),
    }
}

/// Writes logs to stderr. `RUST_LOG=info,dlock=debug` shows every acquire and release.
pub(crate) fn show_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
