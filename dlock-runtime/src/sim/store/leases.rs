//! A store of leases: one host that grants them by its own clock, and remembers abandoned owners.

mod line;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::line::{Line, SIGN};
use super::{Connection, What, digest, world};
use crate::backend::{
    Answer, AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Release, Released,
    Renewal, SetAttempt, Watch, validity_of,
};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::record::{Decision, Part, Record, SetDecision, acquire_set};
use crate::owner::OwnerId;
use crate::sim::Nanos;
use crate::sim::calls::Notices;
use crate::sim::host::{HostId, Visit};
use crate::sim::instance::ProcessId;

/// The host and what it stores.
pub(super) struct Leases {
    host: HostId,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    records: BTreeMap<LockKey, Record>,
    last_token: u64,
    /// Owners whose acquire was abandoned: a late acquire of theirs is not granted.
    abandoned: HashSet<OwnerId>,
    /// Who is told of changes, in the present run of the host.
    watches: Vec<(LockKey, ProcessId, usize)>,
    epoch: u32,
    /// Until when, in true time, somebody held the key or waited for it.
    occupied: BTreeMap<LockKey, Nanos>,
    /// Who waits for each key, if a release reserves it for the first one in line.
    lines: Option<BTreeMap<LockKey, Line>>,
    /// Whether a renewal restores a lease of which nothing is stored.
    restores: bool,
}

impl Leases {
    pub(super) fn new() -> Self {
        let host = world::with(|world| world.add_host("store".to_owned()));
        Self { host, state: Arc::default() }
    }

    pub(super) const fn host(&self) -> HostId {
        self.host
    }

    /// A release reserves the key for the first one in line.
    pub(super) fn in_line() -> Self {
        let leases = Self::new();
        leases.state().lines = Some(BTreeMap::new());
        leases
    }

    /// A renewal restores a lease of which it finds nothing, if nobody else has the key. Renewals are slow, so that this
    /// happens.
    pub(super) fn restoring() -> Self {
        // About as long as a short ttl.
        const SLOW: Duration = Duration::from_millis(350);
        let leases = Self::new();
        leases.state().restores = true;
        world::with(|world| world.network.slow_down_renewals(SLOW));
        leases
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the key was held or waited for at or after a moment.
    pub(super) fn was_occupied(&self, key: &LockKey, since: Nanos) -> bool {
        self.state().occupied.get(key).is_some_and(|until| *until >= since)
    }

    pub(super) fn waiters(&self) -> Vec<String> {
        let now = world::with(|world| world.host_clock(self.host));
        let state = self.state();
        let waiting = state.records.iter().flat_map(|(key, record)| {
            let waiting = record.queue.iter().filter(|waiter| waiter.gives_up > now);
            waiting.map(move |waiter| format!("{key}: {waiter:?}"))
        });
        let lines = state.lines.iter().flatten();
        let in_line = lines.flat_map(|(key, line)| {
            line.owners(now).map(move |owner| format!("{key}: {owner} in line"))
        });
        waiting.chain(in_line).collect()
    }

    pub(super) fn occupied(&self) -> Vec<String> {
        let now = world::with(|world| world.host_clock(self.host));
        let mut state = self.state();
        let each = state.records.iter_mut();
        let used = each.filter_map(|(key, record)| {
            record.expire(now);
            (!record.is_empty()).then(|| format!("{key}: {record:?}"))
        });
        used.collect()
    }
}

impl State {
    /// Notes who has a key, or waits for it, after a request.
    fn note_occupied(&mut self, key: &LockKey, visit: &Visit) {
        let Some(record) = self.records.get(key) else { return };
        let in_true_time = |end: u64| visit.true_time + end.saturating_sub(visit.now) * 1_000;
        let held = record.granted.iter().map(|grant| grant.ends);
        let ends = held.chain(record.queue.iter().map(|waiter| waiter.gives_up)).max();
        let occupied = self.occupied.entry(key.clone()).or_default();
        // Freed just now, if it was occupied until later.
        *occupied = ends.map_or((*occupied).min(visit.true_time), in_true_time);
    }

    /// Subscriptions end with the host's run.
    fn enter(&mut self, visit: &Visit) {
        if self.epoch != visit.epoch {
            self.epoch = visit.epoch;
            self.watches.clear();
        }
    }

    fn next_token(last: u64, visit: &Visit) -> u64 {
        (last + 1).max(visit.now)
    }

    fn try_acquire(&mut self, claim: &Claim, visit: &Visit) -> Attempt {
        self.enter(visit);
        if self.abandoned.contains(&claim.owner) {
            return Attempt::busy(None);
        }
        let record = self.records.entry(claim.key.clone()).or_default();
        let last_token = &mut self.last_token;
        let decision = record.acquire(claim, visit.now, || {
            *last_token = Self::next_token(*last_token, visit) + u64::from(claim.more_tokens());
            *last_token
        });
        let attempt = match decision {
            Decision::Granted(last) => Attempt::granted_up_to(last, claim, validity_of(claim.ttl)),
            Decision::Busy { retry_in, queued: true } => Attempt::queued(retry_in),
            Decision::Busy { retry_in, queued: false } => Attempt::busy(retry_in),
        };
        let other_permits = record.other_permits(claim);
        let attempt = self.in_line(claim, attempt, visit);
        self.note_occupied(&claim.key, visit);
        attempt.with_other_permits(other_permits)
    }

    /// A plain claim that has to wait joins the line, and leaves it when it is granted the key.
    fn in_line(&mut self, claim: &Claim, attempt: Attempt, visit: &Visit) -> Attempt {
        let Some(lines) = &mut self.lines else { return attempt };
        match attempt {
            Attempt::Busy { expires_in, queued: false, .. }
                if claim.is_plain() && !claim.wait_left.is_zero() =>
            {
                lines.entry(claim.key.clone()).or_default().join(claim, visit.from, visit.now);
                Attempt::queued(Some(expires_in.map_or(SIGN, |left| left.min(SIGN))))
            }
            attempt => {
                self.leave_line(claim);
                attempt
            }
        }
    }

    fn leave_line(&mut self, claim: &Claim) {
        if let Some(line) = self.lines.as_mut().and_then(|lines| lines.get_mut(&claim.key)) {
            line.leave(claim.owner);
        }
    }

    /// Reserves a key that was just released for the first one in line, and notifies its process alone. False if nobody is
    /// in line, or if others want the key as well.
    fn hand_over(&mut self, key: &LockKey, visit: &mut Visit) -> bool {
        let Some(line) = self.lines.as_mut().and_then(|lines| lines.get_mut(key)) else {
            return false;
        };
        let Some(record) = self.records.get_mut(key).filter(|record| record.is_empty()) else {
            return false;
        };
        let watches = &self.watches;
        let listens = |process, (watched, watching, _): &(LockKey, ProcessId, usize)| {
            watched == key && *watching == process
        };
        let reaches = |process| watches.iter().any(|watch| listens(process, watch));
        let Some(turn) = line.next(visit.now, reaches) else { return false };
        let last_token = &mut self.last_token;
        let reserved = record.acquire(&turn.claim, visit.now, || {
            *last_token =
                Self::next_token(*last_token, visit) + u64::from(turn.claim.more_tokens());
            *last_token
        });
        debug_assert!(matches!(reserved, Decision::Granted(_)), "an empty record");
        let told = self.watches.iter().filter(|watch| listens(turn.process, watch));
        visit.notices.extend(told.map(|(_, process, watch)| (*process, *watch)));
        self.note_occupied(key, visit);
        true
    }

    fn try_acquire_set(&mut self, claims: &[Claim], visit: &Visit) -> SetAttempt {
        self.enter(visit);
        let is_abandoned = |claim: &Claim| self.abandoned.contains(&claim.owner);
        if let Some(at) = claims.iter().position(is_abandoned) {
            return SetAttempt::busy(at, None, false);
        }
        let take = |claim: &Claim| self.records.remove(&claim.key).unwrap_or_default();
        let mut records: Vec<Record> = claims.iter().map(take).collect();
        let first = Self::next_token(self.last_token, visit);
        let parts = records.iter_mut().zip(first..);
        let parts = parts.map(|(entry, next_token)| Part { entry, now: visit.now, next_token });
        let decision = acquire_set(&mut parts.collect::<Vec<_>>(), claims);
        if let SetDecision::Granted(tokens) = &decision {
            self.last_token = tokens.iter().copied().fold(self.last_token, u64::max);
        }
        for (record, claim) in records.into_iter().zip(claims) {
            self.records.insert(claim.key.clone(), record);
            self.note_occupied(&claim.key, visit);
        }
        let ttl = claims.iter().map(|claim| claim.ttl).min().unwrap_or_default();
        SetAttempt::of(decision, validity_of(ttl))
    }

    fn renew(&mut self, claim: &Claim, visit: &Visit) -> Renewal {
        self.enter(visit);
        let record = self.records.get_mut(&claim.key);
        let is_renewed = record.is_some_and(|record| record.renew(claim, visit.now))
            || self.restores && self.restore(claim, visit);
        self.note_occupied(&claim.key, visit);
        if is_renewed {
            Renewal::Renewed { validity: validity_of(claim.ttl) }
        } else {
            Renewal::NotHeld
        }
    }

    /// Grants a claim anew, with the token that it has, unless somebody else has the key or waits for it.
    fn restore(&mut self, claim: &Claim, visit: &Visit) -> bool {
        let Some(token) = claim.token.filter(|_| !self.abandoned.contains(&claim.owner)) else {
            return false;
        };
        let record = self.records.entry(claim.key.clone()).or_default();
        record.expire(visit.now);
        record.is_empty() && {
            let restored = record.acquire(claim, visit.now, || token.get());
            matches!(restored, Decision::Granted(_))
        }
    }

    fn release(&mut self, claim: &Claim, release: Release, visit: &mut Visit) -> Released {
        self.enter(visit);
        if release.late_acquire {
            self.abandoned.insert(claim.owner);
        }
        self.leave_line(claim);
        let Some(record) = self.records.get_mut(&claim.key) else { return Released::NotHeld };
        let released = record.release(claim, release, visit.now);
        if released == Released::NotHeld || !self.hand_over(&claim.key, visit) {
            self.changed(&claim.key, visit);
        }
        released
    }

    /// Notifies those who watch a key.
    fn changed(&mut self, key: &LockKey, visit: &mut Visit) {
        self.note_occupied(key, visit);
        if self.records.get(key).is_some_and(Record::is_empty) {
            self.records.remove(key);
        }
        let watching = self.watches.iter().filter(|(watched, ..)| watched == key);
        visit.notices.extend(watching.map(|(_, process, watch)| (*process, *watch)));
    }

    fn states(&mut self, prefix: &str, visit: &Visit) -> Vec<LockState> {
        self.enter(visit);
        let found = self.records.iter_mut().filter(|(key, _)| key.as_str().starts_with(prefix));
        let states = found.map(|(key, record)| record.state(key.clone(), visit.now));
        states.filter(|state| !state.is_idle()).collect()
    }

    fn revoke(&mut self, key: &LockKey, visit: &Visit) -> bool {
        self.enter(visit);
        self.records.get_mut(key).is_some_and(|record| record.revoke(visit.now))
    }

    fn force_release(&mut self, key: &LockKey, visit: &mut Visit) -> bool {
        self.enter(visit);
        let Some(record) = self.records.get_mut(key) else { return false };
        record.expire(visit.now);
        let held = !record.granted.is_empty();
        record.granted.clear();
        if !held || !self.hand_over(key, visit) {
            self.changed(key, visit);
        }
        held
    }
}

/// A process's client.
pub(super) struct LeasesClient {
    server: Arc<Leases>,
    connection: Connection,
}

impl LeasesClient {
    pub(super) fn new(server: Arc<Leases>) -> Self {
        let connection = Connection { host: server.host };
        Self { server, connection }
    }

    async fn ask<R: std::fmt::Debug + Send + 'static>(
        &self,
        name: &'static str,
        digest: u64,
        act: impl Fn(&mut State, &mut Visit) -> R + Send + Sync + 'static,
    ) -> Result<R, BackendError> {
        let what = What { name, digest, may_repeat: false };
        let answer = self.connection.ask(what, &self.server.state, act).await;
        answer.map(|answer| answer.value)
    }
}

impl AsyncBackend for LeasesClient {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LEASES.with_every_kind().with_atomic_sets(true)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        let asked = claim.clone();
        let act = move |state: &mut State, visit: &mut Visit| state.try_acquire(&asked, visit);
        let state = &self.server.state;
        let what = What { name: "acquire", digest: digest(claim), may_repeat: true };
        let answer = self.connection.ask(what, state, act).await?;
        Ok(answer.value.with_in_doubt(answer.in_doubt))
    }

    async fn try_acquire_set(&self, claims: &[Claim]) -> Result<SetAttempt, BackendError> {
        let asked = claims.to_vec();
        let act = move |state: &mut State, visit: &mut Visit| state.try_acquire_set(&asked, visit);
        let state = &self.server.state;
        let what = What { name: "acquire set", digest: digest(&claims[0]), may_repeat: true };
        let answer = self.connection.ask(what, state, act).await?;
        Ok(answer.value.with_in_doubt(answer.in_doubt))
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let asked = claim.clone();
        self.ask("renew", digest(claim), move |state, visit| state.renew(&asked, visit)).await
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        let asked = claim.clone();
        let act = move |state: &mut State, visit: &mut Visit| state.release(&asked, release, visit);
        let name = if release.late_acquire { "release late" } else { "release" };
        self.ask(name, digest(claim), act).await
    }

    async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        let notices = Notices::new();
        let (key, watch) = (key.clone(), notices.id());
        self.ask("watch", watch as u64, move |state, visit| {
            state.enter(visit);
            state.watches.push((key.clone(), visit.from, watch));
        })
        .await?;
        Ok(Box::new(LeasesWatch(notices)))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let key = key.clone();
        self.ask("inspect", 0, move |state, visit| {
            let record = state.records.get_mut(&key)?;
            record.expire(visit.now);
            Some(record.granted.first()?.holder(visit.now))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let prefix = prefix.to_owned();
        self.ask("list", 0, move |state, visit| state.states(&prefix, visit)).await
    }

    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        let key = key.clone();
        self.ask("revoke", 0, move |state, visit| state.revoke(&key, visit)).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let key = key.clone();
        self.ask("force-release", 0, move |state, visit| state.force_release(&key, visit)).await
    }
}

/// Ended by being dropped: what the host sends after that reaches nobody.
struct LeasesWatch(Notices);

impl Watch for LeasesWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(self.0.next())
    }
}
