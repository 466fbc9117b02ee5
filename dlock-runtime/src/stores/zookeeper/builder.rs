//! Connecting: the URL and its options.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zookeeper_client::Acls;

use super::reconnecting::Reconnecting;
use super::session::Ensemble;
use super::{Inner, ZooKeeper};
use crate::error::BackendError;
use crate::stores::shared::addresses::{NOT_CREDENTIALS, UrlParts, checked_hosts, decoded};
use crate::stores::shared::in_flight_limit::InFlightLimit;
use crate::stores::shared::tombstones::Tombstones;
use crate::stores::shared::url::options;

/// How to reach a ZooKeeper ensemble. Made by [`ZooKeeper::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing before `connect`"]
pub struct ZooKeeperBuilder {
    root: String,
    session_timeout: Duration,
    /// In addition to those of the URL, each as `user:password`.
    credentials: Vec<String>,
}

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    hosts: String,
    credentials: Option<String>,
    /// Starts with its slash, or is empty.
    chroot: String,
    session_timeout: Option<Duration>,
}

impl ZooKeeperBuilder {
    pub(super) fn new() -> Self {
        let (root, session_timeout) = ("/dlock".to_owned(), Duration::from_secs(6));
        Self { root, session_timeout, credentials: vec![] }
    }

    /// The folder, below the chroot, in which every key has its own folder. The default is `/dlock`. A Java service
    /// shares the lock with Curator's `InterProcessMutex(client, "/dlock/product:100")`.
    pub fn root(mut self, folder: impl Into<String>) -> Self {
        self.root = folder.into();
        self
    }

    /// How long the ensemble waits for a process that it does not hear from before it frees its locks. The default is
    /// 6 s. The servers limit it (by default to 2 to 20 ticks of 2 s).
    ///
    /// After a crash a lock is free within two session timeouts and an election. The shortest `ttl` is therefore three
    /// session timeouts.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// Uses these credentials in addition to the URL's. Each of them can then access the nodes. The guide shows how to
    /// change a password this way while services run.
    pub fn also_credentials(mut self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        self.credentials.push(format!("{}:{}", user.as_ref(), password.as_ref()));
        self
    }

    /// Connects. See [`ZooKeeper::connect`].
    ///
    /// # Errors
    /// Those of [`ZooKeeper::connect`], and a chroot or a root that is not a path.
    ///
    /// # Cancel safety
    /// Cancel safe: a session in progress is closed.
    pub async fn connect(self, url: &str) -> Result<ZooKeeper, BackendError> {
        let address = Address::parse(url)?;
        let root = format!("{}{}", address.chroot, self.root.trim_end_matches('/'));
        if !root.starts_with('/') || root.contains("//") {
            return Err(unreadable(
                "the chroot and the root must be paths such as /services and /dlock",
            ));
        }
        let timeout = address.session_timeout.unwrap_or(self.session_timeout);
        let Address { hosts, credentials, .. } = address;
        let credentials: Vec<_> = credentials.into_iter().chain(self.credentials).collect();
        let acls = if credentials.is_empty() { Acls::anyone_all() } else { Acls::creator_all() };
        let ensemble = Ensemble { hosts, credentials, timeout, root, acls };
        let session = ensemble.first_connect().await?;
        let has_several = ensemble.credentials.len() > 1;
        let store = ZooKeeper(Arc::new(Inner {
            ensemble,
            tombstones: Tombstones::default(),
            timeout: session.timeout,
            session: Mutex::new(Some(session)),
            reconnecting: Reconnecting::default(),
            room: InFlightLimit::default(),
            claims: Mutex::default(),
        }));
        if has_several {
            store.open_folders(&store.0.ensemble.acls).await?;
        }
        Ok(store)
    }
}

/// Without the credentials.
impl fmt::Debug for ZooKeeperBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperBuilder")
            .field("root", &self.root)
            .field("session_timeout", &self.session_timeout)
            .finish_non_exhaustive()
    }
}

impl Address {
    fn parse(url: &str) -> Result<Self, BackendError> {
        let rest = url.strip_prefix("zookeeper://");
        let rest = rest.ok_or_else(|| unreadable("it must begin with zookeeper://"))?;
        let parts = UrlParts::split(rest);
        let credentials = parts.credentials.map(user_and_password).transpose()?;
        let servers = parts.servers;
        let (hosts, chroot) = servers.split_at(servers.find('/').unwrap_or(servers.len()));
        Ok(Self {
            hosts: checked_hosts(hosts).map_err(unreadable)?,
            credentials,
            chroot: chroot.trim_end_matches('/').to_owned(),
            session_timeout: session_timeout(parts.query)?,
        })
    }
}

fn user_and_password(credentials: &str) -> Result<String, BackendError> {
    let plain = decoded(credentials).map_err(unreadable)?;
    if plain.contains(':') { Ok(plain) } else { Err(unreadable(NOT_CREDENTIALS)) }
}

fn session_timeout(query: &str) -> Result<Option<Duration>, BackendError> {
    let options = options("zookeeper", query, &["session_timeout_ms"])?;
    let Some((_, number)) = options.first() else { return Ok(None) };
    match number.parse() {
        Ok(number) if number > 0 => Ok(Some(Duration::from_millis(number))),
        _ => Err(unreadable("`session_timeout_ms` must be a positive number of milliseconds")),
    }
}

fn unreadable(problem: &str) -> BackendError {
    BackendError::permanent(format!(
        "not a zookeeper URL (zookeeper://user:password@host:port,host:port/chroot): {problem}"
    ))
    .not_sent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_with_its_parts() {
        let url = "zookeeper://u:p%40w@a:1,b:2/services/?session_timeout_ms=2000";
        let address = Address::parse(url).unwrap();
        assert_eq!(address.hosts, "a:1,b:2");
        assert_eq!(address.credentials.as_deref(), Some("u:p@w"));
        assert_eq!(address.chroot, "/services");
        assert_eq!(address.session_timeout, Some(Duration::from_secs(2)));
        assert_eq!(Address::parse("zookeeper://a:1").unwrap().chroot, "");
    }

    #[test]
    fn credentials_are_not_shown() {
        let builder = ZooKeeperBuilder::new().also_credentials("u", "secret");
        assert!(!format!("{builder:?}").contains("secret"));
    }

    #[test]
    fn mistakes_are_told_without_the_password() {
        for url in [
            "zookeeper://u:secret@a",
            "zookeeper://u:secret@a:1,b",
            "zookeeper://secret@a:1",
            "zookeeper://u:secret@a:1?colour=red",
            "zookeeper://u:secret@a:1?session_timeout_ms=0",
            "zookeeper://u:1?secret@a:1",
            "zookeeper://u:p@a:1?session_timeout_ms=1000&colour=secret",
        ] {
            let told = Address::parse(url).unwrap_err().to_string();
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
