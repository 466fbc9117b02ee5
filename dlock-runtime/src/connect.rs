//! Backends by URL.

use crate::backend::Backend;
use crate::error::BackendError;
use crate::stores::{self, STORES, Scheme};

/// Connects to whatever backend a URL names: `memory:`, `sqlite:path`,
/// `redis://…`, `redis+cluster://…`, `redis+sentinel://…` (and `rediss…` for TLS), `redlock://…` (`redlocks://…`),
/// `postgres://…`, `mysql://…`, `zookeeper://…`, `etcd://…`
/// (`etcds://…`).
///
/// # Errors
/// A permanent error for a scheme that is unknown or whose feature is off, which lists the schemes
/// this build has; otherwise that of the backend. No error shows a password.
///
/// # Cancel safety
/// Cancel safe: a connection under way is closed.
pub async fn connect(url: &str) -> Result<Box<dyn Backend>, BackendError> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if schemes().any(|known| known.name == scheme && known.is_enabled)
        && let Some(store) = stores::connect(scheme, url).await
    {
        return store;
    }
    Err(BackendError::permanent(refusal(scheme)).not_sent())
}

fn schemes() -> impl Iterator<Item = &'static Scheme> {
    STORES.iter().flat_map(|store| store.schemes)
}

fn refusal(scheme: &str) -> String {
    let enabled: Vec<_> =
        schemes().filter(|known| known.is_enabled).map(|known| known.name).collect();
    let enabled = enabled.join(", ");
    match schemes().find(|known| known.name == scheme) {
        Some(Scheme { name, feature: Some(feature), .. }) => format!(
            "this build has no backend for `{name}:` URLs: turn on the feature `{feature}` of dlock-runtime (it has: {enabled})"
        ),
        // What is no scheme may be anything, a password included: it is not repeated.
        _ if !is_scheme(scheme) => {
            format!("a backend's URL begins with its scheme, one of: {enabled}")
        }
        _ => format!("no backend has the URL scheme `{scheme}` (this build has: {enabled})"),
    }
}

/// Could this be the scheme of a URL?
pub(crate) fn is_scheme(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    word.starts_with(|first: char| first.is_ascii_alphabetic()) && word.bytes().all(fits)
}
