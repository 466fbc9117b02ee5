//! Locks in etcd: a queue of keys, each under a lease of its own.
//!
//! | key | what it is |
//! |---|---|
//! | `dlock/<key>/<owner>` | one who holds the lock or waits for it, under its lease: `owner claimant`; `- claimant` while a released lock is kept, `~owner claimant` if the hold was revoked |
//! | `dlock/<key>/shared-<owner>`, `…/permits-<number>-<owner>` | the same of a reader, and of a holder of one of several permits |
//!
//! The recipe is that of etcd's own `concurrency.Mutex`: who has the smallest create revision holds,
//! everybody else watches the one right before it; but every acquire has a lease of its own, since two locks
//! under one lease would be one lock. The lease's number is made from the owner, so that a grant whose answer
//! was lost is found again. The fencing token is the create revision.

mod builder;
mod calls;
mod login;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;

pub use self::builder::EtcdBuilder;
use self::calls::{Awaited, Calls, Kept, OwnKey, Stored};
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, MAX_LISTED, Mode, Release,
    Released, Renewal, Waiter, Watch, validity_of,
};
use crate::client_info::ClientInfo;
use crate::clock::Moment;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::queue::{Position, holders, position};
use crate::owner::OwnerId;
use crate::stores::shared::tombstones::Tombstones;
use crate::token::FencingToken;

/// What the name of a reader's key begins with; and, with their number, that of a holder of a permit.
const SHARED: &str = "shared-";
const PERMITS: &str = "permits-";

/// Stands in the place of the owner while a released lock is kept for the rest of a `min_hold`.
const KEPT: &str = "-";

/// Stands before the owner of a hold that was revoked.
const REVOKED: char = '~';

/// Locks in an etcd cluster (3.4 or newer).
///
/// Clones share its connections.
#[derive(Clone)]
pub struct Etcd(Arc<Inner>);

struct Inner {
    calls: Calls,
    prefix: String,
    /// How much longer than the true one a leader that was replaced may go on renewing leases.
    stale_leader: Duration,
    min_ttl: Duration,
    tombstones: Tombstones,
}

/// How long a lease surely lasts.
#[derive(Clone, Copy)]
struct Validity {
    from: Moment,
    lasts: Duration,
}

/// Where a place stands in its queue.
struct QueueView<T> {
    /// What has to go before it is admitted.
    behind: Option<T>,
    /// Another number of permits by which somebody before it counts.
    other_permits: Option<NonZeroU32>,
}

impl<T> Default for QueueView<T> {
    fn default() -> Self {
        Self { behind: None, other_permits: None }
    }
}

/// The names that belong to a claim.
struct Names {
    /// What all keys of the queue begin with.
    queue: String,
    own: String,
    lease: i64,
}

impl Etcd {
    /// Connects to `etcd://[user:password@]host:port,host:port,…`, or (with the feature `etcd-tls`) over TLS to
    /// `etcds://…`.
    ///
    /// # Errors
    /// A URL that cannot be read, a cluster that cannot be reached or refuses the credentials. No error
    /// shows the password.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection under way is closed.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::builder().connect(url).await
    }

    /// Options before connecting.
    pub fn builder() -> EtcdBuilder {
        EtcdBuilder::new()
    }

    /// Uses these credentials from now on, if the servers take them: for passwords that change while the process
    /// runs. Clones use them as well.
    ///
    /// Holds are not touched: a lock belongs to its lease, whoever asks for it.
    ///
    /// # Errors
    /// A permanent error if the servers refuse them, and a transient one if they do not answer: those before stay
    /// in use then. No error shows the password.
    ///
    /// # Cancel safety
    /// When it is dropped, either may be in use.
    pub async fn update_credentials(&self, user: &str, password: &str) -> Result<(), BackendError> {
        self.0.calls.login.update(user, password).await
    }

    fn queue_of(&self, key: &LockKey) -> String {
        let mut queue = self.begins_with(key.as_str());
        queue.push('/');
        queue
    }

    /// What the queues of all keys begin with that begin so.
    fn begins_with(&self, key_prefix: &str) -> String {
        let mut queue = String::with_capacity(self.0.prefix.len() + key_prefix.len() + 1);
        queue.push_str(&self.0.prefix);
        // A slash would let one key's queue begin with another's.
        for character in key_prefix.chars() {
            match character {
                '%' => queue.push_str("%25"),
                '/' => queue.push_str("%2F"),
                plain => queue.push(plain),
            }
        }
        queue
    }

    fn names(&self, claim: &Claim) -> Names {
        let queue = self.queue_of(&claim.key);
        let own = match claim.mode {
            Mode::Exclusive => format!("{queue}{}", claim.owner),
            Mode::Shared => format!("{queue}{SHARED}{}", claim.owner),
            Mode::Permits(permits) => format!("{queue}{PERMITS}{permits}-{}", claim.owner),
        };
        let [bytes, _] = halves(&claim.owner);
        // Leases have positive numbers.
        let lease = i64::try_from(bytes >> 1).unwrap_or(1).max(1);
        Names { queue, own, lease }
    }

    /// How long a lease surely lasts that a leader has renewed.
    fn renewed_validity(&self, ttl: Duration) -> Duration {
        validity_of(ttl).saturating_sub(self.0.stale_leader)
    }

    /// Takes a place in the queue under a lease, the one it has if it was asked for before; says from when
    /// and for how long the lease is valid.
    async fn line_up(
        &self,
        claim: &Claim,
        names: &Names,
    ) -> Result<(OwnKey, Validity), BackendError> {
        let calls = &self.0.calls;
        let mut valid = Validity { from: Moment::now(), lasts: validity_of(claim.ttl) };
        if !calls.grant(names.lease, seconds(claim.ttl)).await? {
            valid = self.keep(claim, names).await?;
        }
        let value = value(claim);
        let place = calls.put_in_queue(&names.own, &value, names.lease, &names.queue).await?;
        Ok((place, valid))
    }

    /// Renews the lease of one who waits.
    async fn keep(&self, claim: &Claim, names: &Names) -> Result<Validity, BackendError> {
        let from = Moment::now();
        match self.0.calls.keep_alive(names.lease).await? {
            Kept::Kept => Ok(Validity { from, lasts: self.renewed_validity(claim.ttl) }),
            Kept::Gone => Err(self.0.calls.lapsed()),
        }
    }

    /// What a place has to wait for, and at which revision of the store that was seen.
    async fn position(
        &self,
        claim: &Claim,
        names: &Names,
        place: &OwnKey,
    ) -> Result<QueueView<(Awaited, i64)>, BackendError> {
        let calls = &self.0.calls;
        if claim.mode == Mode::Exclusive {
            let before = calls.predecessor(&names.queue, place.revision).await?;
            let behind = before.map(|(key, seen_at)| (Awaited::Key(key), seen_at));
            return Ok(QueueView { behind, other_permits: None });
        }
        let (keys, seen_at) = calls.before(&names.queue, place.revision).await?;
        let ahead = keys.into_iter().map(|key| {
            let mode = mode(&key[names.queue.len().min(key.len())..]);
            (key, mode)
        });
        let ahead: Vec<_> = ahead.collect();
        let other_permits = claim.mode.other_permits(ahead.iter().map(|(_, other)| *other));
        let behind = match position(claim.mode, ahead) {
            Position::Admitted => None,
            Position::Behind(key) => Some((Awaited::Key(key), seen_at)),
            Position::Crowded => Some((Awaited::AnyOf(names.queue.clone().into_bytes()), seen_at)),
        };
        Ok(QueueView { behind, other_permits })
    }

    /// Waits until this key is gone, and keeps the own lease meanwhile.
    async fn until_gone(
        &self,
        claim: &Claim,
        names: &Names,
        behind: Awaited,
        revision: i64,
    ) -> Result<(), BackendError> {
        let calls = &self.0.calls;
        let mut gone = std::pin::pin!(calls.until_deleted(behind, revision));
        loop {
            tokio::select! {
                gone = &mut gone => return gone,
                () = tokio::time::sleep(claim.ttl / 3) => {
                    self.keep(claim, names).await?;
                }
            }
        }
    }

    /// Is the claim's key there, and its own?
    async fn is_there(&self, claim: &Claim, names: &Names) -> Result<bool, BackendError> {
        let stored = self.0.calls.value(&names.own).await?;
        Ok(stored.is_some_and(|stored| stored == value(claim).as_bytes()))
    }

    /// Who stands there, taken for a holder.
    async fn holder(&self, stands: &Stored) -> Result<Holder, BackendError> {
        let [_, left] = self.0.calls.times(stands.lease).await?;
        let (owner, revoked, client_info) = read(&stands.value);
        Ok(Holder::new(owner, token(stands.revision), left)
            .with_mode(stands.mode())
            .with_client_info(client_info)
            .with_revoked(revoked))
    }

    /// The key to whose queue this belongs.
    fn key_of(&self, stored: &[u8]) -> Option<LockKey> {
        let stored = std::str::from_utf8(stored).ok()?.strip_prefix(&self.0.prefix)?;
        let (key, _) = stored.rsplit_once('/')?;
        Some(LockKey::from(&*percent_decode_str(key).decode_utf8().ok()?))
    }
}

/// What a claim's key holds.
fn value(claim: &Claim) -> String {
    format!("{} {}", claim.owner, claim.client_info.to_text())
}

/// Reads back what stands in a key: the owner, whether its hold was revoked, and who it is.
fn read(stored: &[u8]) -> (Option<OwnerId>, bool, Option<ClientInfo>) {
    let stored = std::str::from_utf8(stored).unwrap_or_default();
    let (owner, client_info) = stored.split_once(' ').unwrap_or((stored, ""));
    let revoked = owner.starts_with(REVOKED);
    let owner = OwnerId::parse(owner.trim_start_matches(REVOKED));
    (owner, revoked, ClientInfo::parse(client_info))
}

/// The names of those of a queue who hold the key.
fn hold(queue: &[Stored]) -> Vec<Vec<u8>> {
    holders(queue.iter().map(|one| (one.key.clone(), one.mode())).collect())
}

impl Stored {
    fn mode(&self) -> Mode {
        let name = self.key.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        mode(name)
    }
}

/// A grant to who asked at this moment.
fn granted(place: &OwnKey, asked: Moment, valid: Validity) -> Attempt {
    Attempt::granted(token(place.revision), valid.from.since(&asked) + valid.lasts)
}

fn token(revision: i64) -> FencingToken {
    FencingToken::new(revision.unsigned_abs())
}

/// The kind of a key, by its name within the queue.
fn mode(name: &[u8]) -> Mode {
    let name = std::str::from_utf8(name).unwrap_or_default();
    let permits = name.strip_prefix(PERMITS).and_then(|rest| rest.split_once('-'));
    match permits.and_then(|(permits, _)| permits.parse::<NonZeroU32>().ok()) {
        Some(permits) => Mode::Permits(permits),
        None if name.starts_with(SHARED) => Mode::Shared,
        None => Mode::Exclusive,
    }
}

/// Two numbers out of an owner's random bits.
fn halves(owner: &OwnerId) -> [u64; 2] {
    let bits = u128::from_be_bytes(*owner.as_bytes());
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    [half(bits >> 64), half(bits)]
}

/// Whole seconds, at least so long.
fn seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(i64::MAX)
}

impl AsyncBackend for Etcd {
    fn kind(&self) -> &'static str {
        "etcd"
    }

    fn capabilities(&self) -> Capabilities {
        let able = Capabilities::ETCD;
        able.with_ttl(self.0.min_ttl, able.max_ttl)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let _room = self.0.calls.room.enter().await;
        let asked = Moment::now();
        let names = self.names(claim);
        let (place, valid) = self.line_up(claim, &names).await?;
        let position = match claim.mode {
            _ if place.is_first => QueueView::default(),
            Mode::Exclusive => QueueView { behind: Some(()), other_permits: None },
            Mode::Shared | Mode::Permits(_) => {
                let QueueView { behind, other_permits } =
                    self.position(claim, &names, &place).await?;
                QueueView { behind: behind.map(|_| ()), other_permits }
            }
        };
        if position.behind.is_none() {
            let granted = granted(&place, asked, valid);
            return Ok(granted.with_other_permits(position.other_permits));
        }
        // A try does not wait: it leaves the queue.
        self.0.calls.revoke(names.lease).await?;
        Ok(Attempt::busy(None).with_other_permits(position.other_permits))
    }

    async fn acquire_queued(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let room = self.0.calls.room.enter().await;
        let asked = Moment::now();
        let names = self.names(claim);
        let (place, valid) = self.line_up(claim, &names).await?;
        if place.is_first {
            return Ok(granted(&place, asked, valid));
        }
        let calls = &self.0.calls;
        let QueueView { mut behind, other_permits } = self.position(claim, &names, &place).await?;
        if behind.is_none() {
            return Ok(granted(&place, asked, valid).with_other_permits(other_permits));
        }
        drop(room);
        while let Some((awaited, revision)) = behind {
            self.until_gone(claim, &names, awaited, revision).await?;
            behind = self.position(claim, &names, &place).await?.behind;
        }
        // It was long in the queue: are lease and key still there?
        let valid = self.keep(claim, &names).await?;
        if !self.is_there(claim, &names).await? {
            return Err(calls.lapsed());
        }
        Ok(granted(&place, asked, valid).with_other_permits(other_permits))
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let names = self.names(claim);
        let kept = self.0.calls.keep_alive(names.lease).await?;
        if kept == Kept::Gone || !self.is_there(claim, &names).await? {
            return Ok(Renewal::NotHeld);
        }
        Ok(Renewal::Renewed { validity: self.renewed_validity(claim.ttl) })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.0.tombstones.note(claim);
        }
        let _room = self.0.calls.room.enter().await;
        let names = self.names(claim);
        let calls = &self.0.calls;
        if release.late_acquire {
            // Without its lease nothing that is still under way can put the key.
            let was_there = self.is_there(claim, &names).await?;
            calls.revoke(names.lease).await?;
            return Ok(if was_there { Released::Released } else { Released::NotHeld });
        }
        let value = value(claim);
        let released = match release.keep_for {
            Some(rest) => {
                // A lease of its own lasts for the rest; the key keeps its place in the queue.
                let [_, bytes] = halves(&claim.owner);
                let lease = i64::try_from(bytes >> 1).unwrap_or(2).max(1);
                calls.grant(lease, seconds(rest)).await?;
                let kept = format!("{KEPT} {}", claim.client_info.to_text());
                calls.replace_own(&names.own, &value, &kept, lease).await?
            }
            None => {
                calls.delete_own(&names.own, &value).await?
                    || calls.delete_own(&names.own, &format!("{REVOKED}{value}")).await?
            }
        };
        // Left alone it would end by itself, with nothing under it; or with a hold that was revoked.
        let _ = calls.revoke(names.lease).await;
        Ok(if released { Released::Released } else { Released::NotHeld })
    }

    async fn watch(&self, _: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        Err(BackendError::permanent("etcd has a queue of its own: its waiters take their turn"))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let head = self.0.calls.head(&self.queue_of(key)).await?;
        let Some(head) = head else { return Ok(None) };
        self.holder(&head).await.map(Some)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let all = self.0.calls.all(&self.begins_with(prefix)).await?;
        let mut queues: BTreeMap<LockKey, Vec<Stored>> = BTreeMap::new();
        for one in all {
            if let Some(key) = self.key_of(&one.key) {
                queues.entry(key).or_default().push(one);
            }
        }
        let mut states = vec![];
        for (key, queue) in queues.into_iter().take(MAX_LISTED) {
            let holding = hold(&queue);
            let (mut holders, mut waiters) = (vec![], vec![]);
            for one in queue {
                if holding.contains(&one.key) {
                    holders.push(self.holder(&one).await?);
                } else {
                    let (owner, _, client_info) = read(&one.value);
                    waiters.push(Waiter::new(owner, one.mode(), client_info));
                }
            }
            states.push(LockState::new(key, holders, waiters));
        }
        Ok(states)
    }

    /// Marks the holders' keys: their next renewal finds that they are not as they were put.
    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        let calls = &self.0.calls;
        let queue = calls.all(&self.queue_of(key)).await?;
        let holding = hold(&queue);
        let mut held = false;
        for one in queue.iter().filter(|one| holding.contains(&one.key)) {
            let (Some(_), revoked, _) = read(&one.value) else { continue };
            held = true;
            if !revoked {
                let stored = String::from_utf8_lossy(&one.value);
                let own = String::from_utf8_lossy(&one.key);
                calls.replace_own(&own, &stored, &format!("{REVOKED}{stored}"), one.lease).await?;
            }
        }
        Ok(held)
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let (calls, queue) = (&self.0.calls, self.queue_of(key));
        let (keys, _) = calls.before(&queue, i64::MAX).await?;
        let all = keys.into_iter().map(|key| {
            let mode = mode(&key[queue.len().min(key.len())..]);
            (key, mode)
        });
        let mut held = false;
        for key in holders(all.collect()) {
            held |= calls.delete(key).await?;
        }
        Ok(held)
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("hosts", &self.0.calls.hosts)
            .field("prefix", &self.0.prefix)
            .finish_non_exhaustive()
    }
}
