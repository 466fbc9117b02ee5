//! The table of stores, one row each. Everything else about a store is in its folder.

use std::time::Duration;

use crate::backend::{Backend, Capabilities};
use crate::error::BackendError;

#[cfg(feature = "etcd")]
pub mod etcd;
pub(crate) mod memory;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "redis")]
pub mod redlock;
pub(crate) mod shared;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

/// A store that dlock supports, whether or not this build includes it.
pub(crate) struct Store {
    /// The value of [`Backend::kind`].
    pub(crate) kind: &'static str,
    pub(crate) schemes: &'static [Scheme],
    /// With default settings.
    pub(crate) capabilities: Capabilities,
}

/// A URL scheme of a store.
pub(crate) struct Scheme {
    pub(crate) name: &'static str,
    /// The feature that enables it. The memory store needs none.
    pub(crate) feature: Option<&'static str>,
    /// Whether this build has the feature.
    pub(crate) is_enabled: bool,
}

/// The table. Each row defines the store's re-export, its URL schemes, how to connect, and the capabilities that
/// `install` and the guide report.
macro_rules! stores {
    ($(
        $module:ident::$store:ident $(, feature $feature:literal)? {
            schemes: [$($scheme:literal $(if $scheme_feature:literal)?),+],
            connect: $connect:ident,
            capabilities: $capabilities:expr,
        }
    )+) => {
        $(
            $(#[cfg(feature = $feature)])?
            pub use $module::$store;
        )+

        /// Every store, in the order of the guide.
        pub(crate) const STORES: &[Store] = &[$(
            Store {
                kind: stringify!($module),
                schemes: &[$(
                    stores!(@scheme $scheme $(, $scheme_feature)?)
                ),+],
                capabilities: $capabilities,
            }
        ),+];

        /// Connects to the store with this scheme. Returns `None` if no enabled store has it.
        pub(crate) async fn connect(
            scheme: &str,
            url: &str,
        ) -> Option<Result<Box<dyn Backend>, BackendError>> {
            $(
                $(#[cfg(feature = $feature)])?
                if [$($scheme),+].contains(&scheme) {
                    let store = $store::$connect(url).await;
                    return Some(store.map(|store| Box::new(store) as Box<dyn Backend>));
                }
            )+
            None
        }
    };
    (@scheme $scheme:literal) => {
        Scheme { name: $scheme, feature: None, is_enabled: true }
    };
    (@scheme $scheme:literal, $feature:literal) => {
        Scheme { name: $scheme, feature: Some($feature), is_enabled: cfg!(feature = $feature) }
    };
}

stores! {
    memory::Memory {
        schemes: ["memory"],
        connect: connect,
        capabilities: Capabilities::MEMORY,
    }
    sqlite::Sqlite, feature "sqlite" {
        schemes: ["sqlite" if "sqlite"],
        connect: connect,
        capabilities: Capabilities::SHARED_STORE,
    }
    redis::Redis, feature "redis" {
        schemes: [
            "redis" if "redis",
            "rediss" if "redis-tls",
            "redis+cluster" if "redis",
            "rediss+cluster" if "redis-tls",
            "redis+sentinel" if "redis",
            "rediss+sentinel" if "redis-tls"
        ],
        connect: connect,
        capabilities: Capabilities::SHARED_STORE,
    }
    redlock::Redlock, feature "redis" {
        schemes: ["redlock" if "redis", "redlocks" if "redis-tls"],
        connect: connect_url,
        capabilities: Capabilities::REDLOCK,
    }
    postgres::Postgres, feature "postgres" {
        schemes: ["postgres" if "postgres", "postgresql" if "postgres"],
        connect: connect,
        capabilities: Capabilities::SHARED_STORE,
    }
    mysql::MySql, feature "mysql" {
        schemes: ["mysql" if "mysql", "mariadb" if "mysql"],
        connect: connect,
        capabilities: Capabilities::SHARED_STORE,
    }
    zookeeper::ZooKeeper, feature "zookeeper" {
        schemes: ["zookeeper" if "zookeeper"],
        connect: connect,
        capabilities: Capabilities::ZOOKEEPER,
    }
    etcd::Etcd, feature "etcd" {
        schemes: ["etcd" if "etcd", "etcds" if "etcd-tls"],
        connect: connect,
        capabilities: Capabilities::ETCD,
    }
}

/// The capabilities of each backend with default settings.
impl Capabilities {
    pub(crate) const MEMORY: Self = Self::SHARED_STORE.with_shared_by_processes(false);

    /// SQLite, Redis, PostgreSQL and MySQL.
    pub(crate) const SHARED_STORE: Self = Self::LEASES.with_every_kind().with_atomic_sets(true);

    /// A majority of nodes preserves neither a count nor an order, and readers would weaken its tokens.
    pub(crate) const REDLOCK: Self =
        Self::LEASES.with_ttl(Duration::from_millis(50), Duration::from_mins(3));

    /// A lock ends with its session, so it cannot be kept for the rest of a `min_hold`.
    pub(crate) const ZOOKEEPER: Self = Self::LEASES
        .with_ttl(Duration::from_secs(18), Self::LEASES.max_ttl)
        .with_min_hold(false)
        .with_push(false)
        .with_queue(true)
        .with_session(true)
        .with_every_kind();

    pub(crate) const ETCD: Self = Self::LEASES
        .with_ttl(Duration::from_secs(3), Self::LEASES.max_ttl)
        .with_push(false)
        .with_queue(true)
        .with_every_kind();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(duration: Duration) -> String {
        match duration {
            hours if hours >= Duration::from_hours(1) => format!("{} h", hours.as_secs() / 3600),
            minutes if minutes >= Duration::from_mins(1) => {
                format!("{} min", minutes.as_secs() / 60)
            }
            seconds if seconds >= Duration::from_secs(1) => format!("{} s", seconds.as_secs()),
            millis => format!("{} ms", millis.as_millis()),
        }
    }

    #[test]
    fn the_guide_shows_what_each_backend_can_do() {
        let guide = include_str!("guide/backends.md");
        for Store { kind, capabilities: able, .. } in STORES {
            let answers = [
                able.shared,
                able.permits,
                able.fair,
                able.atomic_sets,
                able.min_hold,
                able.shared_by_processes,
                able.push,
                able.queue,
                able.session,
            ];
            let mut cells: Vec<String> =
                answers.map(|yes| if yes { "yes" } else { "no" }.to_owned()).to_vec();
            cells.extend([able.min_ttl, able.max_ttl].map(shown));
            let row = format!("| {kind} | {} |", cells.join(" | "));
            assert!(guide.lines().any(|line| line == row), "not in the guide:\n{row}");
        }
    }
}
