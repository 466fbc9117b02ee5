//! Leases on one Redis server.
//!
//! | name | what it holds | how long |
//! |---|---|---|
//! | `dlock:{key}` | `owner:token` | the lease |
//! | `dlock:{key}:token` | the last token | an hour after it was drawn |
//! | `dlock:{key}:gone:owner` | an acquire that was given up | a ttl and a minute |
//! | `dlock:{key}:free` (channel) | "look again" | – |
//!
//! Each operation is one Lua script, so that comparison and change are one step; this is the pattern
//! of the `SET` command's documentation ("Patterns: locking with SET NX"), with fencing tokens.
//! Scripts run by their hash (`EVALSHA`); a server that does not know one is sent it once.
//!
//! # What it does not promise
//! A replica that is promoted before it has heard of a grant grants again, and so does a server that
//! restarts without its data within a lease. Tokens grow in both cases as long as the servers' clocks
//! agree: only a fenced resource is safe then.

mod link;
mod names;
mod subscriptions;

use std::fmt;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Client, Script};

use self::link::{Limits, Link};
use self::names::Names;
use self::subscriptions::{ChannelWatch, Subscriptions};
use super::by_async_methods::backend_by_async_methods;
use super::{Attempt, Claim, Holder, Release, Released, Renewal, validity_of};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::token::FencingToken;

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/acquire.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/renew.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/release.lua")));
static FORCE_RELEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("redis/force_release.lua")));
static INSPECT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/inspect.lua")));

/// How much longer than a ttl a tombstone stays: an old connection's bytes that a stopped server
/// still has are executed when it goes on, together with the tombstone's own request.
const TOMBSTONE: Duration = Duration::from_mins(1);

/// Leases on one Redis server (5.0 or newer), or on what speaks its protocol.
///
/// Requests share one multiplexed connection, which is made again when it breaks; waiters are woken
/// over a second one. Clones share both.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    subscriptions: Subscriptions,
    prefix: String,
}

/// How to reach a Redis server; made by [`Redis::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `connect`"]
pub struct RedisBuilder {
    prefix: String,
    limits: Limits,
    #[cfg(feature = "redis-tls")]
    root_certificate: Option<Vec<u8>>,
}

impl Redis {
    /// Connects to `redis://[user:password@]host[:port][/db]`, or `rediss://…` for TLS (feature
    /// `redis-tls`).
    ///
    /// # Errors
    /// A URL that cannot be read, a server that cannot be reached or refuses the credentials, or one
    /// whose `maxmemory-policy` evicts keys, and with them locks. No error shows the password.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection under way is closed.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect(url).await
    }

    /// Options before connecting.
    pub fn builder() -> RedisBuilder {
        let second = Duration::from_secs(1);
        RedisBuilder {
            prefix: "dlock:".to_owned(),
            limits: Limits { connect: second, response: second },
            #[cfg(feature = "redis-tls")]
            root_certificate: None,
        }
    }

    fn names(&self, key: &LockKey) -> Names {
        Names::new(&self.0.prefix, key)
    }

    /// A server that evicts keys under memory pressure would evict held locks.
    async fn refuse_eviction(&self) -> Result<(), BackendError> {
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("maxmemory-policy");
        match self.0.link.send::<Vec<String>>(&ask).await {
            Ok(answer) => match answer.get(1) {
                Some(policy) if policy != "noeviction" => Err(BackendError::permanent(format!(
                    "this redis evicts keys when its memory is full (maxmemory-policy {policy}), and with them held locks: set it to noeviction, or use another server for locks"
                ))),
                _ => Ok(()),
            },
            Err(error) if error.is_transient() || !error.may_have_been_sent() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "redis does not tell its maxmemory-policy; make sure that it is noeviction");
                Ok(())
            }
        }
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        let names = self.names(&claim.key);
        let mut call = ACQUIRE.prepare_invoke();
        call.key(&names.lock).key(names.token()).key(names.tombstone(&claim.owner));
        call.arg(claim.owner.to_string()).arg(millis(claim.ttl));
        match self.0.link.run_repeatable::<(u8, i64)>(&call).await? {
            (1, token) => {
                let token = FencingToken::new(token.unsigned_abs());
                Ok(Attempt::granted(token, validity_of(claim.ttl)))
            }
            (0, left) => Ok(Attempt::busy(u64::try_from(left).ok().map(Duration::from_millis))),
            _ => Ok(Attempt::busy(None)),
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let mut call = RENEW.prepare_invoke();
        call.key(self.names(&claim.key).lock);
        call.arg(claim.owner.to_string()).arg(millis(claim.ttl));
        match self.0.link.run_repeatable(&call).await? {
            1 => Ok(Renewal::Renewed { validity: validity_of(claim.ttl) }),
            _ => Ok(Renewal::NotHeld),
        }
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        let names = self.names(&claim.key);
        let tombstone = if release.late_acquire { millis(claim.ttl + TOMBSTONE) } else { 0 };
        let mut call = RELEASE.prepare_invoke();
        call.key(&names.lock).key(names.tombstone(&claim.owner));
        call.arg(claim.owner.to_string()).arg(release.keep_for.map_or(0, millis));
        call.arg(names.channel()).arg(tombstone);
        match self.0.link.run(&call).await? {
            1 => Ok(Released::Released),
            _ => Ok(Released::NotHeld),
        }
    }

    async fn watch(&self, key: &LockKey) -> Result<ChannelWatch, BackendError> {
        self.0.subscriptions.watch(self.names(key).channel()).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let mut call = INSPECT.prepare_invoke();
        call.key(self.names(key).lock);
        let answer: Option<(String, u64, i64)> = self.0.link.run_repeatable(&call).await?;
        Ok(answer.map(|(owner, token, left)| {
            let expires_in = Duration::from_millis(u64::try_from(left).unwrap_or(0));
            Holder::new(OwnerId::parse(&owner), FencingToken::new(token), expires_in)
        }))
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let names = self.names(key);
        let mut call = FORCE_RELEASE.prepare_invoke();
        call.key(&names.lock).arg(names.channel());
        self.0.link.run(&call).await
    }
}

impl RedisBuilder {
    /// What every name begins with; `dlock:` if not set. Services with different prefixes share a
    /// server without excluding each other.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long the server may take to answer a request; 1 s if not set.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.limits.response = limit;
        self
    }

    /// How long making a connection may take; 1 s if not set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.limits.connect = limit;
        self
    }

    /// A certificate (PEM) to trust besides the system's, for `rediss://` with an authority of one's
    /// own.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Connects; see [`Redis::connect`].
    ///
    /// # Errors
    /// Those of [`Redis::connect`], and a prefix with a brace in it.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection under way is closed.
    pub async fn connect(self, url: &str) -> Result<Redis, BackendError> {
        if self.prefix.contains(['{', '}']) {
            let problem = "a prefix must not contain braces: the lock's key is the hash tag";
            return Err(BackendError::permanent(problem).not_sent());
        }
        let client = client(url, &self)?;
        let link = Arc::new(Link::new(client, self.limits));
        let subscriptions = Subscriptions::new(Arc::clone(&link));
        let redis = Redis(Arc::new(Inner { link, subscriptions, prefix: self.prefix }));
        redis.refuse_eviction().await?;
        Ok(redis)
    }
}

#[cfg(feature = "redis-tls")]
fn client(url: &str, options: &RedisBuilder) -> Result<Client, BackendError> {
    if !url.starts_with("rediss:") {
        return Client::open(url).map_err(|error| unreadable(&error));
    }
    // Fails only if the process has installed a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root_cert = options.root_certificate.clone();
    let tls = redis::TlsCertificates { client_tls: None, root_cert };
    Client::build_with_tls(url, tls).map_err(|error| unreadable(&error))
}

#[cfg(not(feature = "redis-tls"))]
fn client(url: &str, _: &RedisBuilder) -> Result<Client, BackendError> {
    if url.starts_with("rediss:") {
        let problem = "this build has no TLS: turn on the feature `redis-tls` of dlock-runtime";
        return Err(BackendError::permanent(problem).not_sent());
    }
    Client::open(url).map_err(|error| unreadable(&error))
}

fn unreadable(error: &redis::RedisError) -> BackendError {
    let problem =
        format!("not a redis URL of the form redis://user:password@host:port/db: {error}");
    BackendError::permanent(problem).not_sent()
}

/// Whole milliseconds, at least one.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

backend_by_async_methods!(Redis, "redis");

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("prefix", &self.0.prefix).finish_non_exhaustive()
    }
}
