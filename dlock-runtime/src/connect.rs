//! Backends by URL.

use crate::backend::Backend;
use crate::error::BackendError;
use crate::stores::{self, STORES, Scheme};

/// Connects to the backend that a URL names.
///
/// The schemes are `memory:`, `sqlite:path`, `redis://…`, `redis+cluster://…`, `redis+sentinel://…`,
/// `redlock://…`, `postgres://…` (or `postgresql://…`), `mysql://…` (or `mariadb://…`), `zookeeper://…`
/// and `etcd://…`; with TLS, `rediss…`, `redlocks://…` and `etcds://…`.
///
/// # Errors
/// For a scheme that is unknown or whose feature is off, a permanent error that lists the schemes of
/// this build; otherwise the backend's error. No error shows a password.
///
/// # Cancel safety
/// Cancel safe: a connection in progress is closed.
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
            "this build has no backend for `{name}:` URLs: enable the feature `{feature}` of dlock-runtime (it has: {enabled})"
        ),
        // Text that is not a scheme may be anything, even a password, so it is not repeated.
        _ if !is_scheme(scheme) => {
            format!("a backend's URL begins with its scheme, one of: {enabled}")
        }
        _ => format!("no backend has the URL scheme `{scheme}` (this build has: {enabled})"),
    }
}

/// Is this the syntax of a URL scheme?
pub(crate) fn is_scheme(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    word.starts_with(|first: char| first.is_ascii_alphabetic()) && word.bytes().all(fits)
}
