//! The signals that end a service.

/// Resolves at the next SIGTERM or Ctrl-C; where there is no SIGTERM, at the next Ctrl-C.
///
/// From the first poll on, these signals no longer end the process by themselves.
///
/// # Panics
/// If the process cannot listen for signals.
///
/// # Cancel safety
/// Cancel safe, but a signal that arrives while nobody listens is ignored.
pub async fn shutdown_signal() {
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.expect("cannot listen for Ctrl-C"),
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};

    let mut signals = signal(SignalKind::terminate()).expect("cannot listen for SIGTERM");
    signals.recv().await;
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending::<()>().await;
}
