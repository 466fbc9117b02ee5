//! Leases in Redis: on one server, on the master that Sentinels watch, or in a Cluster.
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

mod address;
mod builder;
mod link;
mod names;
mod subscriptions;
mod topology;

use std::fmt;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

pub use self::builder::RedisBuilder;
use self::link::{Copies, Link};
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

/// Leases on a Redis server (5.0 or newer), on the master that Sentinels watch, or in a Cluster; or on
/// what speaks the protocol.
///
/// Requests share one multiplexed connection (in a Cluster one to each node), which is made again when
/// it breaks; waiters are woken over another one. Clones share them.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    subscriptions: Subscriptions,
    prefix: String,
    replicas: u32,
}

impl Redis {
    /// Connects to one of
    ///
    /// - `redis://[user:password@]host[:port][/db]`, a server;
    /// - `redis+cluster://[user:password@]host:port,host:port,…`, a Cluster, by some of its nodes;
    /// - `redis+sentinel://[user:password@]host:port,host:port,…/master-name[/db]`, the master that these
    ///   Sentinels watch; the credentials are those of the master, and with
    ///   `?sentinel_username=…&sentinel_password=…` the Sentinels have their own;
    ///
    /// or, with the feature `redis-tls`, to the same over TLS: `rediss://…`, `rediss+cluster://…`,
    /// `rediss+sentinel://…`. The latter two know the option `?replicas=n`, see
    /// [`RedisBuilder::replicas`].
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
        RedisBuilder::new()
    }

    fn names(&self, key: &LockKey) -> Names {
        Names::new(&self.0.prefix, key)
    }

    /// A server that evicts keys under memory pressure would evict held locks.
    async fn refuse_eviction(&self) -> Result<(), BackendError> {
        match self.0.link.setting("maxmemory-policy").await {
            Ok(policies) => match policies.iter().find(|policy| *policy != "noeviction") {
                Some(policy) => Err(BackendError::permanent(format!(
                    "this redis evicts keys when its memory is full (maxmemory-policy {policy}), and with them held locks: set it to noeviction, or use another server for locks"
                ))),
                None => Ok(()),
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
        let copies = Copies { key: &names.lock, replicas: self.0.replicas };
        let is_granted = |(answer, _): &(u8, i64)| *answer == 1;
        match self.0.link.run_copied(&call, copies, is_granted).await? {
            (1, token) => {
                let token = FencingToken::new(token.unsigned_abs());
                Ok(Attempt::granted(token, validity_of(claim.ttl)))
            }
            (0, left) => Ok(Attempt::busy(u64::try_from(left).ok().map(Duration::from_millis))),
            _ => Ok(Attempt::busy(None)),
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let names = self.names(&claim.key);
        let mut call = RENEW.prepare_invoke();
        call.key(&names.lock).arg(claim.owner.to_string()).arg(millis(claim.ttl));
        let copies = Copies { key: &names.lock, replicas: self.0.replicas };
        match self.0.link.run_copied(&call, copies, |answer: &u8| *answer == 1).await? {
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
