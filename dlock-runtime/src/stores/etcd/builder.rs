//! Connecting: the URL and its options.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use percent_encoding::percent_decode_str;

use super::calls::{Calls, explain};
use super::login::Login;
use super::{Etcd, Inner};
use crate::backoff::Backoff;
use crate::error::BackendError;
use crate::owner::OwnerId;
use crate::stores::shared::outage::Outage;
use crate::stores::shared::room::Room;
use crate::stores::shared::tombstones::Tombstones;
use crate::stores::shared::url::options;

/// Between attempts to reach servers of which none can be reached.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How to reach an etcd cluster; made by [`Etcd::builder`].
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

    /// What every key begins with; `dlock/` if not set.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long the cluster may take to answer a request; 1 s if not set.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.response_timeout = limit;
        self
    }

    /// The servers' `--election-timeout`; 1 s if not set, as theirs. A leader that was cut off may renew
    /// leases for about as long after another one was elected, so much less is believed of a renewal.
    pub fn election_timeout(mut self, timeout: Duration) -> Self {
        self.election_timeout = timeout;
        self
    }

    /// The certificate (PEM) of the authority to trust, for `etcds://` with one of one's own; the system's
    /// if not set.
    #[cfg(feature = "etcd-tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Connects; see [`Etcd::connect`].
    ///
    /// # Errors
    /// Those of [`Etcd::connect`].
    ///
    /// # Cancel safety
    /// Cancel safe: a connection under way is closed.
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
        let calls = Calls { client, hosts, limit, login, outage, room: Room::default() };
        let min_ttl = shortest_lease_within(&calls, self.response_timeout).await?;
        // A heartbeat more, of which there are ten in an election timeout.
        let stale_leader = self.election_timeout + self.election_timeout / 10;
        // Half of it at least is to be believed.
        let min_ttl = min_ttl.max(Duration::from_secs((stale_leader * 2).as_secs() + 1));
        let tombstones = Tombstones::default();
        Ok(Etcd(Arc::new(Inner { calls, prefix: self.prefix, stale_leader, min_ttl, tombstones })))
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
        let problem = "this build has no TLS: turn on the feature `etcd-tls` of dlock-runtime";
        Err(BackendError::permanent(problem).not_sent())
    }
}

/// As [`shortest_lease`]; a cluster may be choosing a leader just then.
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

/// The shortest lease that the servers grant; they raise what is shorter.
async fn shortest_lease(calls: &Calls) -> Result<Duration, BackendError> {
    let bits = u64::from_be_bytes(OwnerId::random().as_bytes()[..8].try_into().unwrap_or_default());
    let lease = i64::try_from(bits >> 1).unwrap_or(1).max(1);
    calls.grant(lease, 1).await?;
    let [granted, _] = calls.times(lease).await?;
    calls.revoke(lease).await?;
    Ok(granted)
}

impl Address {
    fn parse(url: &str) -> Result<Self, BackendError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if !matches!(scheme, "etcd" | "etcds") {
            return Err(unreadable("it begins with etcd:// or etcds://"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        options("etcd", query, &[])?;
        let (credentials, hosts) = match rest.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(pair(credentials)?), hosts),
            None => (None, rest),
        };
        let hosts = hosts.trim_end_matches('/');
        let is_host = |host: &str| {
            host.rsplit_once(':')
                .is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok())
        };
        if !hosts.split(',').all(is_host) {
            return Err(unreadable("every server is host:port, with commas between them"));
        }
        Ok(Self { tls: scheme == "etcds", hosts: hosts.to_owned(), credentials })
    }
}

fn pair(credentials: &str) -> Result<(String, String), BackendError> {
    let (user, password) =
        credentials.split_once(':').ok_or_else(|| unreadable("credentials are user:password"))?;
    let plain = |part: &str| {
        let plain = percent_decode_str(part).decode_utf8();
        plain.map(String::from).map_err(|_| unreadable("the credentials are not UTF-8"))
    };
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
        ] {
            let told = Address::parse(url).unwrap_err().to_string();
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
