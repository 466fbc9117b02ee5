//! Connecting: the URL and its options.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};

use super::batches::{Entries, Exits, Looks};
use super::calls::Calls;
use super::failure::explain;
use super::login::Login;
use super::{Etcd, Inner};
use crate::backoff::Backoff;
use crate::error::BackendError;
use crate::stores::shared::addresses::{NOT_CREDENTIALS, UrlParts, checked_hosts, decoded};
use crate::stores::shared::batcher::Batcher;
use crate::stores::shared::claim_leases::{Leases, random_lease};
use crate::stores::shared::in_flight_limit::InFlightLimit;
use crate::stores::shared::outage::Outage;
use crate::stores::shared::tombstones::Tombstones;
use crate::stores::shared::url::options;

/// The pauses between attempts while no server can be reached.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How to reach an etcd cluster. Made by [`Etcd::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `connect`"]
pub struct EtcdBuilder {
    prefix: String,
    response_timeout: Duration,
    election_timeout: Duration,
    #[cfg(feature = "etcd-tls")]
    root_certificate: Option<Vec<u8>>,
}

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    hosts: String,
    credentials: Option<(String, String)>,
}

impl EtcdBuilder {
    pub(super) fn new() -> Self {
        let second = Duration::from_secs(1);
        Self {
            prefix: "dlock/".to_owned(),
            response_timeout: second,
            election_timeout: second,
            #[cfg(feature = "etcd-tls")]
            root_certificate: None,
        }
    }

    /// The prefix of every stored key. The default is `dlock/`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long the cluster may take to answer a request. The default is 1 s.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.response_timeout = limit;
        self
    }

    /// The servers' `--election-timeout`. The default is 1 s, as on the servers.
    ///
    /// A leader that is cut off may go on renewing leases for about this long after another leader was elected. The
    /// validity of a renewal is therefore shorter by 1.1 election timeouts.
    pub fn election_timeout(mut self, timeout: Duration) -> Self {
        self.election_timeout = timeout;
        self
    }

    /// The certificate (PEM) of the authority to trust with `etcds://`. The default is the system's authorities.
    #[cfg(feature = "etcd-tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Connects. See [`Etcd::connect`].
    ///
    /// # Errors
    /// Those of [`Etcd::connect`].
    ///
    /// # Cancel safety
    /// Cancel safe: a connection in progress is closed.
    pub async fn connect(self, url: &str) -> Result<Etcd, BackendError> {
        let Address { tls, hosts, credentials } = Address::parse(url)?;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.response_timeout)
            .with_keep_alive(self.election_timeout * 2, self.election_timeout * 2)
            .with_require_leader(true);
        let has_credentials = credentials.is_some();
        if let Some((user, password)) = credentials {
            options = options.with_user(user, password);
        }
        if tls {
            options = self.with_tls(options)?;
        }
        let scheme = if tls { "https" } else { "http" };
        let endpoints: Vec<_> = hosts.split(',').map(|host| format!("{scheme}://{host}")).collect();
        let connecting = Client::connect(endpoints, Some(options));
        let connected = tokio::time::timeout(self.response_timeout * 3, connecting).await;
        let connected = connected.map_err(|_| {
            let problem = format!("etcd at {hosts} could not be reached in time");
            BackendError::transient(problem).not_sent()
        })?;
        let client = connected.map_err(|error| {
            explain(&hosts, "could not be reached", &error).with_source(error).not_sent()
        })?;
        let limit = self.response_timeout;
        let login = Arc::new(Login::new(client.clone(), &hosts, limit * 3, has_credentials));
        let outage = Outage::new(FIRST_PAUSE, LONGEST_PAUSE);
        let calls = Calls { client, hosts, limit, login, outage, room: InFlightLimit::default() };
        let min_ttl = shortest_lease_within(&calls, self.response_timeout).await?;
        // One heartbeat more. An election timeout has ten.
        let stale_leader = self.election_timeout + self.election_timeout / 10;
        // At least half of a renewed lease must remain.
        let min_ttl = min_ttl.max(Duration::from_secs((stale_leader * 2).as_secs() + 1));
        let calls = Arc::new(calls);
        Ok(Etcd(Arc::new(Inner {
            entries: Batcher::new(Entries(Arc::clone(&calls))),
            exits: Batcher::new(Exits(Arc::clone(&calls))),
            looks: Batcher::new(Looks(Arc::clone(&calls))),
            calls,
            prefix: self.prefix,
            stale_leader,
            min_ttl,
            leases: Leases::default(),
            tombstones: Tombstones::default(),
        })))
    }
}

impl EtcdBuilder {
    #[cfg(feature = "etcd-tls")]
    #[allow(clippy::unnecessary_wraps, reason = "without the feature it fails")]
    fn with_tls(&self, options: ConnectOptions) -> Result<ConnectOptions, BackendError> {
        let tls = etcd_client::TlsOptions::new();
        Ok(options.with_tls(match &self.root_certificate {
            Some(pem) => tls.ca_certificate(etcd_client::Certificate::from_pem(pem)),
            None => tls.with_native_roots(),
        }))
    }

    #[cfg(not(feature = "etcd-tls"))]
    #[allow(clippy::unused_self, reason = "with the feature it is used")]
    fn with_tls(&self, _: ConnectOptions) -> Result<ConnectOptions, BackendError> {
        let problem = "this build has no TLS: enable the feature `etcd-tls` of dlock-runtime";
        Err(BackendError::permanent(problem).not_sent())
    }
}

/// [`shortest_lease`] with retries, because the cluster may just be electing a leader.
async fn shortest_lease_within(calls: &Calls, limit: Duration) -> Result<Duration, BackendError> {
    let began = tokio::time::Instant::now();
    let mut pauses = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    loop {
        match shortest_lease(calls).await {
            Err(error) if error.is_transient() && calls.is_cluster() && began.elapsed() < limit => {
                tokio::time::sleep(pauses.pause()).await;
            }
            answer => return answer,
        }
    }
}

/// The shortest lease that the servers grant. They raise shorter ones to it.
async fn shortest_lease(calls: &Calls) -> Result<Duration, BackendError> {
    let lease = random_lease();
    calls.grant(lease, 1).await?;
    let [granted, _] = calls.times(lease).await?;
    calls.revoke(lease).await?;
    Ok(granted)
}

impl Address {
    fn parse(url: &str) -> Result<Self, BackendError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if !matches!(scheme, "etcd" | "etcds") {
            return Err(unreadable("it must begin with etcd:// or etcds://"));
        }
        let parts = UrlParts::split(rest);
        options("etcd", parts.query, &[])?;
        let credentials = parts.credentials.map(pair).transpose()?;
        let hosts = checked_hosts(parts.servers.trim_end_matches('/')).map_err(unreadable)?;
        Ok(Self { tls: scheme == "etcds", hosts, credentials })
    }
}

fn pair(credentials: &str) -> Result<(String, String), BackendError> {
    let (user, password) =
        credentials.split_once(':').ok_or_else(|| unreadable(NOT_CREDENTIALS))?;
    let plain = |part| decoded(part).map_err(unreadable);
    Ok((plain(user)?, plain(password)?))
}

fn unreadable(problem: &str) -> BackendError {
    BackendError::permanent(format!(
        "not an etcd URL (etcd://user:password@host:port,host:port): {problem}"
    ))
    .not_sent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_with_its_parts() {
        let address = Address::parse("etcd://u:p%40w@a:1,b:2/").unwrap();
        assert_eq!(address.hosts, "a:1,b:2");
        assert!(!address.tls && Address::parse("etcds://a:1").unwrap().tls);
        assert_eq!(address.credentials, Some(("u".to_owned(), "p@w".to_owned())));
    }

    #[test]
    fn mistakes_are_told_without_the_password() {
        for url in [
            "etcd://u:secret@a",
            "etcd://secret@a:1",
            "etcd://u:secret@a:1,b",
            "etcd://u:secret@a:1?colour=secret",
            "etcd://u:1?secret@a:1",
            "etcd://u:secret@a:1/secret",
            "etcd://u:secret%ff@a:1",
        ] {
            let told = Address::parse(url).unwrap_err().to_string();
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
