//! Backends by URL.

use crate::backend::{Backend, Memory};
use crate::error::BackendError;

/// Every URL scheme there is: the scheme, and the feature that brings it.
const SCHEMES: &[(&str, Option<&str>, bool)] = &[
    ("memory", None, true),
    ("sqlite", Some("sqlite"), cfg!(feature = "sqlite")),
    ("redis", Some("redis"), cfg!(feature = "redis")),
    ("rediss", Some("redis-tls"), cfg!(feature = "redis-tls")),
    ("redis+cluster", Some("redis"), cfg!(feature = "redis")),
    ("rediss+cluster", Some("redis-tls"), cfg!(feature = "redis-tls")),
    ("redis+sentinel", Some("redis"), cfg!(feature = "redis")),
    ("rediss+sentinel", Some("redis-tls"), cfg!(feature = "redis-tls")),
    ("redlock", Some("redis"), cfg!(feature = "redis")),
    ("redlocks", Some("redis-tls"), cfg!(feature = "redis-tls")),
    ("postgres", Some("postgres"), cfg!(feature = "postgres")),
    ("postgresql", Some("postgres"), cfg!(feature = "postgres")),
    ("mysql", Some("mysql"), cfg!(feature = "mysql")),
    ("mariadb", Some("mysql"), cfg!(feature = "mysql")),
    ("zookeeper", Some("zookeeper"), cfg!(feature = "zookeeper")),
    ("etcd", Some("etcd"), cfg!(feature = "etcd")),
    ("etcds", Some("etcd-tls"), cfg!(feature = "etcd-tls")),
];

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
    match scheme {
        "memory" => Ok(Box::new(Memory::connect(url).await?)),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Box::new(crate::backend::Sqlite::connect(url).await?)),
        #[cfg(feature = "redis")]
        "redis" | "redis+cluster" | "redis+sentinel" => {
            Ok(Box::new(crate::backend::Redis::connect(url).await?))
        }
        #[cfg(feature = "redis-tls")]
        "rediss" | "rediss+cluster" | "rediss+sentinel" => {
            Ok(Box::new(crate::backend::Redis::connect(url).await?))
        }
        #[cfg(feature = "redis")]
        "redlock" => Ok(Box::new(crate::backend::Redlock::builder().connect_url(url).await?)),
        #[cfg(feature = "redis-tls")]
        "redlocks" => Ok(Box::new(crate::backend::Redlock::builder().connect_url(url).await?)),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Box::new(crate::backend::Postgres::connect(url).await?)),
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => Ok(Box::new(crate::backend::MySql::connect(url).await?)),
        #[cfg(feature = "etcd")]
        "etcd" => Ok(Box::new(crate::backend::Etcd::connect(url).await?)),
        #[cfg(feature = "etcd-tls")]
        "etcds" => Ok(Box::new(crate::backend::Etcd::connect(url).await?)),
        #[cfg(feature = "zookeeper")]
        "zookeeper" => Ok(Box::new(crate::backend::ZooKeeper::connect(url).await?)),
        _ => Err(BackendError::permanent(refusal(scheme)).not_sent()),
    }
}

fn refusal(scheme: &str) -> String {
    let known: Vec<_> = SCHEMES.iter().filter(|(.., on)| *on).map(|(name, ..)| *name).collect();
    let known = known.join(", ");
    match SCHEMES.iter().find(|(name, ..)| *name == scheme) {
        Some((name, Some(feature), _)) => format!(
            "this build has no backend for `{name}:` URLs: turn on the feature `{feature}` of dlock-runtime (it has: {known})"
        ),
        // What is no scheme may be anything, a password included: it is not repeated.
        _ if !is_scheme(scheme) => {
            format!("a backend's URL begins with its scheme, one of: {known}")
        }
        _ => format!("no backend has the URL scheme `{scheme}` (this build has: {known})"),
    }
}

/// Could this be the scheme of a URL?
pub(crate) fn is_scheme(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    word.starts_with(|first: char| first.is_ascii_alphabetic()) && word.bytes().all(fits)
}
