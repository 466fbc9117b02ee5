//! Connecting: which servers, and with what timeouts.

use std::sync::Arc;
use std::time::Duration;

use redis::Client;

use super::address::{self, Address, Form, Options, split_scheme};
use super::cluster::Cluster;
use super::counters::Counters;
use super::link::Limits;
use super::server::Server;
use super::servers::Servers;
use super::subscriptions::Subscriptions;
use super::topology::{Sentinels, Template, Topology};
use super::{Inner, Redis};
use crate::error::BackendError;
use crate::owner::OwnerId;

/// Configures how to reach Redis. Created by [`Redis::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect` is called"]
pub struct RedisBuilder {
    prefix: String,
    limits: Limits,
    replicas: u32,
    #[cfg(feature = "redis-tls")]
    root_certificate: Option<Vec<u8>>,
}

impl RedisBuilder {
    pub(in crate::stores) fn new() -> Self {
        let second = Duration::from_secs(1);
        Self {
            prefix: "dlock:".to_owned(),
            limits: Limits { connect: second, response: second },
            replicas: 0,
            #[cfg(feature = "redis-tls")]
            root_certificate: None,
        }
    }

    /// Sets the prefix of every stored name; `dlock:` if not set. Services with different prefixes
    /// share a server without excluding each other.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the timeout of a request; 1 s if not set.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.limits.response = limit;
        self
    }

    /// Sets the timeout for opening a connection; 1 s if not set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.limits.connect = limit;
        self
    }

    /// Sets how many replicas must have a grant, and each renewal, before it counts; none if not set.
    ///
    /// Redis replicates after it has answered. If a master dies in between, the grant is lost, and the
    /// replica that is promoted grants the lock again. With this option, each grant is followed by
    /// `WAIT`. If too few replicas confirm it within half the response timeout, the call fails, and the
    /// grant is released. This narrows the gap but does not close it, since a replica without the grant
    /// may be the one that is promoted. Only a [fenced](crate::guide::fencing) resource is safe.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Trusts a certificate authority (PEM) of your own instead of the system's, for `rediss://`.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Connects; see [`Redis::connect`].
    ///
    /// # Errors
    /// Those of [`Redis::connect`], and a prefix that contains a brace.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection in progress is closed.
    pub async fn connect(mut self, url: &str) -> Result<Redis, BackendError> {
        self.checked_prefix()?;
        let servers = match split_scheme(url)?.0.form {
            Form::Server => {
                let mut options = address::options(url);
                self.take_replicas(&mut options)?;
                let server = self.server(url, options)?;
                Servers::One(Arc::new(Server::of(server, self.limits, self.replicas > 0)))
            }
            Form::Cluster | Form::Sentinel => self.several(Address::parse(url)?)?,
            Form::Quorum => return Err(address::unreadable("use `backend::Redlock` for this URL")),
        };
        let own_channel = format!("{}process:{}", self.prefix, OwnerId::random());
        // In a Cluster, a message counts only the subscribers of its own node.
        let channel = format!("{} {own_channel}", u8::from(!servers.is_cluster())).into();
        let redis = Redis(Arc::new(Inner {
            subscriptions: Subscriptions::new(servers.clone(), Some(own_channel)),
            counters: Counters::new(&self.prefix, servers.is_cluster()),
            servers,
            prefix: self.prefix,
            channel,
            replicas: self.replicas,
        }));
        redis.0.servers.connect().await?;
        Ok(redis)
    }
}

impl RedisBuilder {
    pub(in crate::stores) fn checked_prefix(&self) -> Result<&str, BackendError> {
        if self.prefix.contains(['{', '}']) {
            let problem = "the prefix must not contain braces, because the hash tag is the key";
            return Err(BackendError::permanent(problem).not_sent());
        }
        Ok(&self.prefix)
    }

    pub(in crate::stores) fn limits(&self) -> Limits {
        self.limits
    }

    /// Creates one of several independent servers.
    pub(in crate::stores) fn node(&self, client: Client) -> Server {
        Server::of(client, self.limits, false)
    }

    /// Creates the client for a URL that names one server. `options` are the URL's options that are still unused.
    pub(in crate::stores) fn server(
        &self,
        url: &str,
        mut options: Options,
    ) -> Result<Client, BackendError> {
        #[cfg(not(feature = "redis-tls"))]
        let _ = self;
        let unreadable = |error: redis::RedisError| address::unreadable(&error.to_string());
        let scheme = split_scheme(url)?.0;
        if scheme.form != Form::Server {
            return Err(address::unreadable("each node is a redis://host:port URL"));
        }
        // The `redis` crate reads this one. It ignores options that it does not know.
        let _ = options.take("protocol");
        options.nothing_left("`protocol`; for a single server also `replicas`")?;
        if !scheme.tls {
            return Client::open(url).map_err(unreadable);
        }
        install_tls()?;
        #[cfg(feature = "redis-tls")]
        if let Some(certificates) = self.certificates() {
            return Client::build_with_tls(url, certificates).map_err(unreadable);
        }
        Client::open(url).map_err(unreadable)
    }

    /// Creates the clients for a URL that names several independent servers.
    pub(in crate::stores) fn quorum(
        &self,
        address: &mut Address,
    ) -> Result<Vec<Client>, BackendError> {
        if address.scheme.form != Form::Quorum {
            return Err(address::unreadable(
                "several nodes are a redlock://host:port,host:port,… URL",
            ));
        }
        if address.scheme.tls {
            install_tls()?;
        }
        let database = std::mem::take(&mut address.path);
        address.select_database(&database)?;
        self.clients(address)
    }

    /// Creates the servers of a form with several nodes.
    fn several(&mut self, mut address: Address) -> Result<Servers, BackendError> {
        if address.scheme.tls {
            install_tls()?;
        }
        self.take_replicas(&mut address.options)?;
        let servers = match address.scheme.form {
            Form::Sentinel => {
                let shown = address::shown(&address.nodes);
                let topology = Topology::Sentinels(Arc::new(self.sentinels(&mut address)?));
                let is_copied = self.replicas > 0;
                let server = Server::new(&topology, &shown, self.limits, is_copied);
                Servers::One(Arc::new(server))
            }
            _ => Servers::Cluster(Arc::new(self.cluster(&address)?)),
        };
        let known = "`replicas`; for Sentinels also `sentinel_username`, `sentinel_password`";
        address.options.nothing_left(known)?;
        Ok(servers)
    }

    fn take_replicas(&mut self, options: &mut Options) -> Result<(), BackendError> {
        if let Some(replicas) = options.take("replicas") {
            let problem = "`replicas` must be a number of servers";
            self.replicas = replicas.parse().map_err(|_| address::unreadable(problem))?;
        }
        Ok(())
    }

    fn cluster(&self, address: &Address) -> Result<Cluster, BackendError> {
        if !address.path.is_empty() {
            return Err(address::unreadable("a Cluster has only one database, so omit its number"));
        }
        let is_copied = self.replicas > 0;
        let seeds = self.clients(address)?.into_iter();
        let seeds = seeds.map(|client| Server::of(client, self.limits, is_copied)).collect();
        let template = self.template(address.nodes[0].clone(), address.scheme.tls);
        Ok(Cluster::new(template, seeds, self.limits, is_copied))
    }

    fn template(&self, settings: redis::ConnectionInfo, tls: bool) -> Template {
        #[cfg(not(feature = "redis-tls"))]
        let _ = (self, tls);
        Template {
            settings,
            #[cfg(feature = "redis-tls")]
            certificates: self.certificates().filter(|_| tls),
        }
    }

    fn sentinels(&self, address: &mut Address) -> Result<Sentinels, BackendError> {
        let (master, db) = address.path.split_once('/').unwrap_or((&address.path, ""));
        if master.is_empty() {
            let problem =
                "the Sentinels must be followed by the name of their master, such as /mymaster";
            return Err(address::unreadable(problem));
        }
        let master = master.to_owned();
        let mut credentials = address.nodes[0].redis_settings().clone();
        if !db.is_empty() {
            let problem = "the master's name can be followed only by the number of a database";
            credentials = credentials.set_db(db.parse().map_err(|_| address::unreadable(problem))?);
        }
        let settings = address.nodes[0].clone().set_redis_settings(credentials);
        // The Sentinels have other credentials, or none.
        let mut own = redis::RedisConnectionInfo::default();
        if let Some(user) = address.options.take("sentinel_username") {
            own = own.set_username(user);
        }
        if let Some(password) = address.options.take("sentinel_password") {
            own = own.set_password(password);
        }
        for node in &mut address.nodes {
            *node = node.clone().set_redis_settings(own.clone());
        }
        Ok(Sentinels {
            clients: self.clients(address)?,
            master,
            template: self.template(settings, address.scheme.tls),
        })
    }

    fn clients(&self, address: &Address) -> Result<Vec<Client>, BackendError> {
        #[cfg(not(feature = "redis-tls"))]
        let _ = self;
        let open = |node: &redis::ConnectionInfo| {
            #[cfg(feature = "redis-tls")]
            if let Some(certificates) = self.certificates().filter(|_| address.scheme.tls) {
                let client = Client::build_with_tls(node.clone(), certificates);
                return client.map_err(|error| address::unreadable(&error.to_string()));
            }
            address::client(node)
        };
        address.nodes.iter().map(open).collect()
    }

    #[cfg(feature = "redis-tls")]
    fn certificates(&self) -> Option<redis::TlsCertificates> {
        let root_cert = Some(self.root_certificate.clone()?);
        Some(redis::TlsCertificates { client_tls: None, root_cert })
    }
}

#[cfg(feature = "redis-tls")]
#[allow(clippy::unnecessary_wraps, reason = "without the feature it fails")]
fn install_tls() -> Result<(), BackendError> {
    // Fails only if the process has already installed a provider, which works as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(())
}

#[cfg(not(feature = "redis-tls"))]
fn install_tls() -> Result<(), BackendError> {
    let problem = "this build has no TLS; enable the feature `redis-tls` of dlock-runtime";
    Err(BackendError::permanent(problem).not_sent())
}
