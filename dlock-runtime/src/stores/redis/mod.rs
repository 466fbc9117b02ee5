//! Leases in Redis: on one server, on the master that Sentinels watch, or in a Cluster.
//!
//! | name | contents | lifetime |
//! |---|---|---|
//! | `dlock:{key}` | the exclusive holder: `owner:token:1:client info`, `:2:` when its release is announced; or a reservation, with the token 0 | the lease |
//! | `dlock:tokens` | a counter of all tokens; in a Cluster `dlock:tokens:{n}`, one for each slot in use | for good |
//! | `dlock:{key}:group` | the readers or permit holders, and the queue | the longest of the leases |
//! | `dlock:{key}:line` | those that wait with plain claims, in order | 1.5 s after the last sign of life |
//! | `dlock:{key}:gone:owner` | a tombstone: an abandoned acquire | a ttl and a minute |
//! | `dlock:{key}:free` (channel) | wake-ups for all waiters | – |
//! | `dlock:process:id` (channel) | wake-ups for the waiters of one process | – |
//!
//! Each operation is one Lua script, so that it compares and changes atomically. This is the pattern
//! of the `SET` command's documentation ("Patterns: locking with SET NX"), with fencing tokens.
//! Scripts run by their hash (`EVALSHA`). A server that does not know a script is sent it once.
//!
//! One call of a script serves many callers: requests that are ready while another one is in flight go out
//! together (`stores/shared/batcher.rs`). In a Cluster, those for one node go out in one message, as one call for each
//! slot.
//!
//! A token is the next value of the counter, which is kept for good. Each new connection first raises the counter to
//! the server's time in microseconds. So it is above every token that the server has drawn, even if a restart or a
//! failover has forgotten the last ones; where the counter is ahead of the clock, a second's worth of tokens is skipped.
//! A counter that is below a token that was drawn over the same connection was lost while the server ran, and is
//! raised as well.
//!
//! # What it does not promise
//! A replica that is promoted before it has received a grant grants the lock again, and so does a
//! server that restarts without its data within a lease. In both cases tokens grow as long as the
//! servers' clocks agree, and only a fenced resource is safe.

pub(super) mod address;
mod builder;
mod cluster;
mod copies;
mod counters;
mod failure;
pub(super) mod link;
pub(super) mod names;
pub(super) mod requests;
pub(super) mod scripts;
pub(super) mod server;
pub(super) mod servers;
mod slots;
pub(super) mod step;
pub(super) mod subscriptions;
mod topology;

use std::fmt;
use std::sync::Arc;

use redis::{FromRedisValue, Value};

pub use self::builder::RedisBuilder;
use self::copies::Copies;
use self::counters::Counters;
use self::names::Names;
use self::scripts::{Acquired, EnteredAnswer, InspectAnswer};
use self::server::{Lane, Server};
use self::servers::Servers;
use self::step::Step;
use self::subscriptions::Subscriptions;
use crate::backend::{
    Answer, Answers, AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Mode, Release,
    Released, Renewal, SetAttempt, Watch, validity_of,
};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::shared::doubt::Doubt;

/// Leases on a Redis server (5.0 or newer), on the master that Sentinels watch, or in a Cluster. Other
/// servers that speak the protocol work as well.
///
/// Requests share two multiplexed connections to each server: one for acquires, one for renewals and
/// releases. With [`replicas`](RedisBuilder::replicas), acquires and renewals have two more each. Waiters
/// are woken over another connection. Broken connections are replaced. Clones share all connections.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    servers: Servers,
    subscriptions: Subscriptions,
    prefix: String,
    counters: Counters,
    /// How waiters of this process are notified, see `line.lua`.
    channel: Arc<str>,
    replicas: u32,
}

impl Redis {
    /// Connects to one of
    ///
    /// - `redis://[user:password@]host[:port][/db]`, a server;
    /// - `redis+cluster://[user:password@]host:port,host:port,…`, a Cluster, given by some of its nodes;
    /// - `redis+sentinel://[user:password@]host:port,host:port,…/master-name[/db]`, the master that these
    ///   Sentinels watch. The credentials are those of the master. The Sentinels have their own:
    ///   `?sentinel_username=…&sentinel_password=…`;
    ///
    /// or, with the feature `redis-tls`, to the same over TLS: `rediss://…`, `rediss+cluster://…`,
    /// `rediss+sentinel://…`. All of them accept the option `?replicas=n`; see
    /// [`RedisBuilder::replicas`].
    ///
    /// # Errors
    /// An invalid URL, a server that cannot be reached or refuses the credentials, or one whose
    /// `maxmemory-policy` evicts keys, and with them locks. No error shows the password.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection in progress is closed.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect(url).await
    }

    /// Creates a builder, to set options before connecting.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::new()
    }

    fn names(&self, key: &LockKey) -> Names {
        Names::new(&self.0.prefix, key)
    }

    async fn try_acquire_one(&self, claim: &Claim, doubt: &Doubt) -> Result<Attempt, BackendError> {
        if claim.is_plain() {
            match self.try_acquire_alone(claim, doubt).await? {
                Acquired::Granted(last) => {
                    return Ok(Attempt::granted_up_to(last, claim, validity_of(claim.ttl)));
                }
                Acquired::GrantedOne(token) => {
                    return Ok(Attempt::granted(token, validity_of(claim.ttl)));
                }
                Acquired::Busy(left) => return Ok(Attempt::busy(left)),
                Acquired::InLine(look_in) => {
                    // The runtime of the task that listens may be gone.
                    self.0.subscriptions.ensure_task();
                    return Ok(Attempt::queued(Some(look_in)));
                }
                Acquired::GivenUp => return Ok(Attempt::busy(None)),
                Acquired::Grouped => {}
            }
        }
        Ok(self.enter(std::slice::from_ref(claim), doubt).await?.of_one())
    }

    async fn try_acquire_alone(
        &self,
        claim: &Claim,
        doubt: &Doubt,
    ) -> Result<Acquired, BackendError> {
        let names = self.names(&claim.key);
        let counter = self.0.counters.of(&names.lock);
        let step = scripts::acquire(&names, claim, counter, Arc::clone(&self.0.channel));
        let copies = self.copies(|value| requests::granted_token(value).is_some());
        let value = self.send_acquire(&names, step, copies, doubt).await?;
        Acquired::try_from(value)
    }

    /// Acquires all of these keys or none, with readers, permits and queues taken into account.
    async fn enter(&self, claims: &[Claim], doubt: &Doubt) -> Result<SetAttempt, BackendError> {
        let names: Vec<_> = claims.iter().map(|claim| self.names(&claim.key)).collect();
        let step = scripts::enter(&names, claims, self.0.counters.of(&names[0].lock));
        let copies = self.copies(|value| {
            matches!(value, Value::Array(words) if matches!(words.first(), Some(Value::Int(1))))
        });
        let value = self.send_acquire(&names[0], step, copies, doubt).await?;
        let answer: EnteredAnswer = requests::read(value)?;
        let ttl = claims.iter().map(|claim| claim.ttl).min().unwrap_or_default();
        Ok(scripts::entered(answer, validity_of(ttl)))
    }

    async fn send_acquire(
        &self,
        names: &Names,
        step: Step,
        copies: Option<Copies>,
        doubt: &Doubt,
    ) -> Result<Value, BackendError> {
        let answered = self.0.servers.send(&names.lock, Lane::Acquire, step, copies).await?;
        if answered.was_resent {
            doubt.note();
        }
        Ok(answered.value)
    }

    /// Sends a request that is not an acquire.
    async fn send<T: FromRedisValue>(
        &self,
        names: &Names,
        step: Step,
        copies: Option<Copies>,
    ) -> Result<T, BackendError> {
        let answered = self.0.servers.send(&names.lock, Lane::Keep, step, copies).await?;
        requests::read(answered.value)
    }

    /// Makes an answer that reports a write count only when enough replicas have the write.
    fn copies(&self, has_written: fn(&Value) -> bool) -> Option<Copies> {
        let replicas = self.0.replicas;
        (replicas > 0).then_some(Copies { replicas, has_written })
    }

    /// Renews exclusive leases on one server. They are due together, so they need not be gathered.
    async fn renew_together(
        &self,
        server: &Server,
        claims: &[Claim],
    ) -> Vec<Result<Renewal, BackendError>> {
        let steps = claims.iter().map(|claim| scripts::renew(&self.names(&claim.key), claim));
        let answers = server.send_all(Lane::Keep, steps.collect()).await;
        let answers = claims.iter().zip(answers);
        answers.map(|(claim, answer)| Ok(renewed(claim, requests::read(answer?.value)?))).collect()
    }

    async fn state(&self, key: LockKey) -> Result<LockState, BackendError> {
        let names = self.names(&key);
        let answer: InspectAnswer = self.send(&names, scripts::inspect(&names), None).await?;
        Ok(scripts::state(key, answer))
    }
}

impl AsyncBackend for Redis {
    fn kind(&self) -> &'static str {
        "redis"
    }

    /// A Cluster has no atomic sets, because its keys are in different slots.
    fn capabilities(&self) -> Capabilities {
        Capabilities::SHARED_STORE.with_atomic_sets(!self.0.servers.is_cluster())
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        let doubt = Doubt::default();
        let answer = self.try_acquire_one(claim, &doubt).await;
        doubt.mark(answer, Attempt::with_in_doubt)
    }

    async fn try_acquire_set(&self, claims: &[Claim]) -> Result<SetAttempt, BackendError> {
        let doubt = Doubt::default();
        let answer = self.enter(claims, &doubt).await;
        doubt.mark(answer, SetAttempt::with_in_doubt)
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let names = self.names(&claim.key);
        // A renewal that is executed late finds nothing to renew.
        let step = match claim.mode {
            Mode::Exclusive => scripts::renew(&names, claim),
            Mode::Shared | Mode::Permits(_) => scripts::stay(&names, claim),
        };
        let copies = self.copies(|value| *value == Value::Int(1));
        Ok(renewed(claim, self.send(&names, step, copies).await?))
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Renewal> {
        let are_exclusive = claims.iter().all(|claim| claim.mode == Mode::Exclusive);
        match &self.0.servers {
            Servers::One(server) if are_exclusive && self.0.replicas == 0 => {
                Answers::from_future(self.renew_together(server, claims))
            }
            _ => {
                Answers::each(claims, |claim| Answer::from_future(AsyncBackend::renew(self, claim)))
            }
        }
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        let names = self.names(&claim.key);
        let step = if claim.may_be_in_a_group() {
            scripts::leave(&names, claim, release)
        } else {
            scripts::release(&names, claim, release)
        };
        match self.send(&names, step, None).await? {
            1_u8 => Ok(Released::Released),
            _ => Ok(Released::NotHeld),
        }
    }

    async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        Ok(Box::new(self.0.subscriptions.watch(self.names(key).channel()).await?))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        Ok(self.state(key.clone()).await?.holders.into_iter().next())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let mut states = vec![];
        for key in self.0.servers.keys(&self.0.prefix, prefix).await? {
            let state = self.state(key).await?;
            if !state.is_idle() {
                states.push(state);
            }
        }
        Ok(states)
    }

    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        let names = self.names(key);
        self.send(&names, scripts::revoke(&names), None).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let names = self.names(key);
        self.send(&names, scripts::force_release(&names), None).await
    }
}

/// The answer to a renewal.
fn renewed(claim: &Claim, answer: u8) -> Renewal {
    match answer {
        1 => Renewal::Renewed { validity: validity_of(claim.ttl) },
        _ => Renewal::NotHeld,
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("prefix", &self.0.prefix)
            .field("subscriptions", &self.0.subscriptions)
            .finish_non_exhaustive()
    }
}
