//! The leases of this process in a store where everything under a lease ends with it, such as etcd: the one that each
//! claim uses, and those that are idle.
//!
//! To grant a lease and to revoke it costs the servers two writes, as many as to put a key and to delete it. So a lease
//! without a key is kept for the next claim with the same ttl. Nobody keeps an idle lease alive, so it ends by itself.
//!
//! A lease has one claim at a time, because everything under it ends with it:
//!
//! - It becomes idle only if no request that may put a key under it is unanswered, and only while it is fresh: a lease
//!   that was granted a while ago, or kept alive since, would give its next claim less than a ttl.
//! - It is revoked only by the claim that has it. From then on nobody puts a key under it, because the request may be
//!   executed late.
//!
//! The ids are random. One that is derived from the first owner would be that of a later owner's lease, too.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Capabilities;
use crate::chance;
use crate::clock::Moment;
use crate::owner::OwnerId;

/// The most idle leases that are kept.
const MOST_IDLE: usize = 256;

/// A lease is used again up to this part of its ttl. Its age shortens the validity of the hold.
const FRESH: u32 = 20;

/// How much longer than its ttl a lease that could not be revoked is remembered.
const LATE: Duration = Duration::from_mins(1);

/// A lease on the servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) id: i64,
    /// The ttl with which it is granted.
    pub(crate) ttl: Duration,
    /// A moment before the request that last granted it or kept it alive.
    pub(crate) from: Moment,
    /// Whether it has been kept alive since it was granted.
    pub(crate) is_renewed: bool,
}

/// What a claim has to do before it puts its key under its lease.
#[derive(Debug)]
pub(crate) enum Start {
    Grant(Lease),
    KeepAlive(Lease),
    /// Revoke it, and [take another one](Leases::replace).
    Replace(Lease),
    Nothing(Lease),
}

/// What becomes of a lease whose claim needs it no longer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Returned {
    /// The claim has no lease, or no longer has it.
    Not,
    Idle,
    /// It has to be revoked. The claim has it until it is [forgotten](Leases::forget).
    Revoke(i64),
}

/// All leases of this process.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    in_use: HashMap<OwnerId, InUse>,
    /// The last one was used last.
    idle: Vec<Lease>,
    sweep_at: usize,
}

/// The lease of a claim.
#[derive(Debug)]
struct InUse {
    lease: Lease,
    /// Whether the servers have granted it.
    is_granted: bool,
    /// Whether the claim's key was seen under it.
    has_key: bool,
    /// Requests to put the key without an answer.
    unanswered: u32,
    /// When a request to revoke it was about to be sent.
    doomed: Option<Instant>,
    /// When the claim's release began. From then on the claim gets nothing.
    released: Option<Instant>,
}

impl Leases {
    const SMALLEST: usize = 64;

    /// Begins an acquire. `None` if the claim was released.
    pub(crate) fn begin(
        &self,
        owner: &OwnerId,
        ttl: Duration,
        is_abandoned: impl FnOnce() -> bool,
    ) -> Option<Start> {
        let mut table = self.table();
        // Under the lock: a release either finds the claim here, or was noted before.
        if is_abandoned() {
            return None;
        }
        if let Some(in_use) = table.in_use.get(owner) {
            return match in_use {
                InUse { released: Some(_), .. } => None,
                InUse { doomed: Some(_), lease, .. } => Some(Start::Replace(*lease)),
                InUse { lease, .. } => Some(Start::KeepAlive(*lease)),
            };
        }
        let idle = table.take_idle(ttl);
        let is_granted = idle.is_some();
        let lease = idle.unwrap_or_else(|| Lease::new(ttl));
        table.insert(owner, InUse::new(lease, is_granted));
        Some(if is_granted { Start::Nothing(lease) } else { Start::Grant(lease) })
    }

    /// Replaces a claim's lease, which has ended, by one that has to be granted. `None` if the claim was released.
    pub(crate) fn replace(&self, owner: &OwnerId, ended: i64) -> Option<Lease> {
        let mut table = self.table();
        let in_use = table.open(owner, ended)?;
        *in_use = InUse::new(Lease::new(in_use.lease.ttl), false);
        Some(in_use.lease)
    }

    /// Notes that the servers granted a claim's lease or kept it alive, after this moment.
    pub(crate) fn proved(&self, owner: &OwnerId, proved: Lease) {
        let mut table = self.table();
        if let Some(in_use) = table.in_use.get_mut(owner)
            && in_use.lease.id == proved.id
        {
            in_use.is_granted = true;
            in_use.lease = proved;
        }
    }

    /// Notes that a request to put the claim's key is about to be sent. False if the claim was released: then it must
    /// not be.
    pub(crate) fn puts(&self, owner: &OwnerId, lease: i64) -> bool {
        let mut table = self.table();
        let in_use = table.open(owner, lease).filter(|in_use| in_use.doomed.is_none());
        in_use.map(|in_use| in_use.unanswered += 1).is_some()
    }

    /// Notes that such a request has been executed or refused, and whether the key is there. False if the claim was
    /// released meanwhile.
    pub(crate) fn put(&self, owner: &OwnerId, lease: i64, has_key: bool) -> bool {
        let mut table = self.table();
        let in_use = table.open(owner, lease).filter(|in_use| in_use.doomed.is_none());
        in_use.map(|in_use| in_use.answered(has_key)).is_some()
    }

    /// Begins a release.
    pub(crate) fn release(&self, owner: &OwnerId) {
        if let Some(in_use) = self.table().in_use.get_mut(owner) {
            in_use.released.get_or_insert_with(Instant::now);
        }
    }

    /// Takes back a claim's lease, under which it has no key.
    pub(crate) fn take_back(&self, owner: &OwnerId) -> Returned {
        let mut table = self.table();
        let Some(in_use) = table.in_use.get_mut(owner) else { return Returned::Not };
        let lease = in_use.lease;
        let is_clean = in_use.is_granted && in_use.unanswered == 0 && in_use.doomed.is_none();
        in_use.doom();
        if is_clean && table.has_room(&lease) {
            table.in_use.remove(owner);
            table.idle.push(lease);
            return Returned::Idle;
        }
        Returned::Revoke(lease.id)
    }

    /// Takes back a claim's lease after a request that was not sent. False if an earlier one has to be undone.
    pub(crate) fn take_back_unsent(&self, owner: &OwnerId) -> bool {
        let mut table = self.table();
        let Some(in_use) = table.in_use.get(owner) else { return true };
        if in_use.has_key || in_use.unanswered > 0 || in_use.doomed.is_some() {
            return false;
        }
        let (lease, is_granted) = (in_use.lease, in_use.is_granted);
        table.in_use.remove(owner);
        // Otherwise it ends by itself, if it was granted at all.
        if is_granted && table.has_room(&lease) {
            table.idle.push(lease);
        }
        true
    }

    /// The claim's lease, which is about to be revoked.
    pub(crate) fn doom(&self, owner: &OwnerId) -> Option<i64> {
        let mut table = self.table();
        let in_use = table.in_use.get_mut(owner)?;
        in_use.doom();
        Some(in_use.lease.id)
    }

    /// Forgets a claim's lease, which has been revoked.
    pub(crate) fn forget(&self, owner: &OwnerId, revoked: i64) {
        let mut table = self.table();
        if table.in_use.get(owner).is_some_and(|in_use| in_use.lease.id == revoked) {
            table.in_use.remove(owner);
        }
    }

    /// The lease of a claim.
    pub(crate) fn of(&self, owner: &OwnerId) -> Option<Lease> {
        self.table().in_use.get(owner).map(|in_use| in_use.lease)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The lease of a claim that was not released.
    fn open(&mut self, owner: &OwnerId, lease: i64) -> Option<&mut InUse> {
        let in_use = self.in_use.get_mut(owner)?;
        (in_use.lease.id == lease && in_use.released.is_none()).then_some(in_use)
    }

    fn insert(&mut self, owner: &OwnerId, in_use: InUse) {
        // Swept whenever it has doubled.
        if self.in_use.len() >= self.sweep_at.max(Leases::SMALLEST) {
            self.in_use.retain(|_, in_use| in_use.is_remembered());
            self.sweep_at = self.in_use.len() * 2;
        }
        self.in_use.insert(*owner, in_use);
    }

    /// A fresh idle lease with this ttl, if there is one.
    fn take_idle(&mut self, ttl: Duration) -> Option<Lease> {
        let at = self.idle.iter().rposition(|lease| lease.ttl == ttl)?;
        let lease = self.idle.remove(at);
        if lease.is_fresh() {
            return Some(lease);
        }
        // Those below are older, as a rule.
        self.idle.retain(Lease::is_fresh);
        None
    }

    /// Whether this lease can be kept too.
    fn has_room(&mut self, lease: &Lease) -> bool {
        if self.idle.len() >= MOST_IDLE {
            self.idle.retain(Lease::is_fresh);
        }
        self.idle.len() < MOST_IDLE && lease.is_fresh()
    }
}

impl InUse {
    fn new(lease: Lease, is_granted: bool) -> Self {
        Self { lease, is_granted, has_key: false, unanswered: 0, doomed: None, released: None }
    }

    fn answered(&mut self, has_key: bool) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.has_key |= has_key;
    }

    fn doom(&mut self) {
        self.doomed.get_or_insert_with(Instant::now);
    }

    /// A lease that could not be revoked, or was not kept alive, for so long has ended.
    fn is_remembered(&self) -> bool {
        let ends = self.doomed.or(self.released);
        let idle = ends.map_or_else(|| self.lease.from.elapsed(), |since| since.elapsed());
        idle < self.lease.lasts() + LATE
    }
}

impl Lease {
    fn new(ttl: Duration) -> Self {
        Self { id: random_lease(), ttl, from: Moment::now(), is_renewed: false }
    }

    /// The longest that it lasts without being kept alive.
    fn lasts(&self) -> Duration {
        self.ttl.min(Capabilities::LEASES.max_ttl)
    }

    /// Whether nearly all of its ttl is left.
    fn is_fresh(&self) -> bool {
        !self.is_renewed && self.from.elapsed() <= self.lasts() / FRESH
    }
}

/// The id of a lease that no other claim has or had.
pub(crate) fn random_lease() -> i64 {
    // Lease ids are positive. The low bits of a random number are as random as all of them.
    i64::try_from(chance::bits() & (u128::from(u64::MAX) >> 1)).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn owner() -> OwnerId {
        OwnerId::random()
    }

    fn begin(leases: &Leases, owner: &OwnerId) -> Start {
        leases.begin(owner, TTL, || false).expect("it was not released")
    }

    /// The lease of a claim that has acquired.
    fn acquired(leases: &Leases, owner: &OwnerId) -> Lease {
        let lease = match begin(leases, owner) {
            Start::Grant(lease) => {
                leases.proved(owner, lease);
                lease
            }
            Start::Nothing(lease) => lease,
            other => panic!("{other:?}"),
        };
        assert!(leases.puts(owner, lease.id) && leases.put(owner, lease.id, true));
        lease
    }

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[test]
    fn lease_ids_are_positive() {
        assert!(random_lease() > 0 && random_lease() != random_lease());
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_of_a_clean_cycle_is_used_again_by_one_claim() {
        let (leases, [one, two, three]) = (Leases::default(), [owner(), owner(), owner()]);
        let lease = acquired(&leases, &one);
        leases.release(&one);
        assert_eq!(leases.take_back(&one), Returned::Idle);
        // A repeated release has nothing to take back or to revoke.
        assert_eq!((leases.take_back(&one), leases.doom(&one)), (Returned::Not, None));
        assert_eq!(acquired(&leases, &two).id, lease.id);
        assert_ne!(acquired(&leases, &three).id, lease.id);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_of_another_ttl_is_not_used() {
        let (leases, one) = (Leases::default(), owner());
        acquired(&leases, &one);
        assert_eq!(leases.take_back(&one), Returned::Idle);
        assert!(matches!(leases.begin(&owner(), TTL * 2, || false), Some(Start::Grant(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_put_prevents_reuse() {
        let (leases, one) = (Leases::default(), owner());
        let lease = acquired(&leases, &one);
        assert!(leases.puts(&one, lease.id));
        assert!(matches!(begin(&leases, &one), Start::KeepAlive(same) if same.id == lease.id));
        assert!(leases.puts(&one, lease.id) && leases.put(&one, lease.id, true));
        leases.release(&one);
        assert_eq!(leases.take_back(&one), Returned::Revoke(lease.id));
        // Until it is known to be revoked, it can be revoked again.
        assert_eq!(leases.doom(&one), Some(lease.id));
        leases.forget(&one, lease.id);
        assert_eq!(leases.doom(&one), None);
        assert!(matches!(begin(&leases, &owner()), Start::Grant(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_may_yet_be_revoked_is_replaced() {
        let (leases, one) = (Leases::default(), owner());
        let lease = acquired(&leases, &one);
        assert_eq!(leases.doom(&one), Some(lease.id));
        assert!(!leases.puts(&one, lease.id));
        assert!(matches!(begin(&leases, &one), Start::Replace(same) if same.id == lease.id));
        let next = leases.replace(&one, lease.id).expect("it was not released");
        assert_ne!(next.id, lease.id);
        leases.forget(&one, lease.id);
        assert_eq!(leases.of(&one).map(|lease| lease.id), Some(next.id));
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_claim_gets_nothing() {
        let (leases, [one, two]) = (Leases::default(), [owner(), owner()]);
        let lease = acquired(&leases, &one);
        assert!(leases.puts(&one, lease.id));
        leases.release(&one);
        assert!(leases.begin(&one, TTL, || false).is_none());
        assert!(!leases.puts(&one, lease.id) && !leases.put(&one, lease.id, true));
        assert!(leases.replace(&one, lease.id).is_none());
        assert!(leases.begin(&two, TTL, || true).is_none() && leases.of(&two).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_fresh_lease_is_used_again() {
        let leases = Leases::default();
        let ttl = Duration::from_secs(30);
        for (age, is_used) in [(ttl / 20, true), (ttl / 19, false), (ttl / 2, false)] {
            let one = owner();
            let lease = acquired(&leases, &one);
            assert_eq!(leases.take_back(&one), Returned::Idle);
            pass(age).await;
            let next = owner();
            match begin(&leases, &next) {
                Start::Nothing(same) if is_used => assert_eq!(same.id, lease.id),
                Start::Grant(other) if !is_used => assert_ne!(other.id, lease.id),
                other => panic!("after {age:?}: {other:?}"),
            }
            // Nor does it become idle again when it is old.
            pass(ttl).await;
            assert!(matches!(leases.take_back(&next), Returned::Revoke(_)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_kept_alive_is_not_used_again() {
        let (leases, one) = (Leases::default(), owner());
        let lease = acquired(&leases, &one);
        leases.proved(&one, Lease { is_renewed: true, from: Moment::now(), ..lease });
        assert_eq!(leases.take_back(&one), Returned::Revoke(lease.id));
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_is_never_released_is_forgotten() {
        let leases = Leases::default();
        for _ in 0..1_000 {
            acquired(&leases, &owner());
        }
        pass(Duration::from_secs(30) + LATE).await;
        for _ in 0..1_000 {
            acquired(&leases, &owner());
        }
        let remembered = leases.table().in_use.len();
        assert!(remembered < 1_200, "{remembered} are remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_never_granted_does_not_become_idle() {
        let (leases, one) = (Leases::default(), owner());
        assert!(matches!(begin(&leases, &one), Start::Grant(_)));
        assert!(leases.take_back_unsent(&one));
        assert!(leases.of(&one).is_none());
        assert!(matches!(begin(&leases, &one), Start::Grant(_)));
        assert!(matches!(leases.take_back(&one), Returned::Revoke(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_with_a_key_does_not_become_idle_after_a_request_that_was_not_sent() {
        let (leases, one) = (Leases::default(), owner());
        let lease = acquired(&leases, &one);
        assert!(matches!(begin(&leases, &one), Start::KeepAlive(_)));
        assert!(!leases.take_back_unsent(&one));
        assert_eq!(leases.of(&one).map(|lease| lease.id), Some(lease.id));
        assert!(matches!(begin(&leases, &owner()), Start::Grant(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_piles_up() {
        let leases = Leases::default();
        let owners: Vec<_> = (0..1_000).map(|_| owner()).collect();
        for owner in &owners {
            acquired(&leases, owner);
        }
        for owner in &owners {
            leases.take_back(owner);
        }
        assert_eq!(leases.table().idle.len(), MOST_IDLE);
        for owner in &owners {
            leases.release(owner);
        }
        // None of their releases has been answered.
        assert_eq!(leases.table().in_use.len(), 1_000 - MOST_IDLE);
        pass(Duration::from_secs(30) + LATE).await;
        for _ in 0..1_000 {
            acquired(&leases, &owner());
        }
        let remembered = leases.table().in_use.len();
        assert!(remembered < 1_200, "{remembered} are remembered");
        assert!(leases.table().idle.is_empty());
    }
}
