//! A key's row in a database: a lease, and beside it the group of those that share the key or wait for it
//! in order.
//!
//! If there is no group, one statement acquires a lease. Everything else reads the row, lets [`Record`]
//! decide, and changes the row with one statement that takes effect only if the row is unchanged since.
//! Nothing is locked in between, so a process that is paused there blocks nobody.

use std::time::Duration;

mod owner;

pub(crate) use self::owner::RowOwner;
use crate::backend::{
    Attempt, Claim, Holder, LockState, Mode, Release, Released, Renewal, SetAttempt, Waiter,
    validity_of,
};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::record::{self, Decision, Grant, Micros, Part, Record};

/// How often a change is retried if others change the row first.
const TRIES: u32 = 200;

/// A row as it was read.
#[derive(Clone, Debug)]
pub(crate) struct LeaseRow {
    /// The owner of the lease; nobody while a released key is kept locked, or is free.
    pub(crate) owner: RowOwner,
    /// The client info of the current or former owner.
    pub(crate) client_info: Option<ClientInfo>,
    pub(crate) token: u64,
    pub(crate) expires: Micros,
    pub(crate) group: Option<String>,
    pub(crate) group_until: Micros,
    /// When it was read, by the database's clock.
    pub(crate) now: Micros,
    /// Whether the acquire of the owner that it was read for was abandoned.
    pub(crate) given_up: bool,
}

/// The new contents of a row.
#[derive(Clone, Debug)]
pub(crate) struct NewRow {
    pub(crate) owner: RowOwner,
    pub(crate) client_info: Option<ClientInfo>,
    pub(crate) token: u64,
    pub(crate) expires: Micros,
    pub(crate) group: Option<String>,
    pub(crate) group_until: Micros,
}

impl NewRow {
    /// Is its token the only thing left in it?
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_idle(&self, now: Micros) -> bool {
        self.expires <= now && self.group.is_none()
    }
}

/// Why a row is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Not executed if the acquire has been abandoned since.
    Acquire,
    Renew,
    /// Announced to waiters. Sent only once: if an earlier copy had been executed, the "no" for the second
    /// one would look like a loss.
    Release,
}

/// The change of one row among several that are changed together.
pub(crate) struct Change<'a> {
    pub(crate) claim: &'a Claim,
    pub(crate) old: &'a LeaseRow,
    pub(crate) new: NewRow,
}

/// The rows of one table.
pub(crate) trait RowStore {
    /// Reads the claim's row.
    async fn look(&self, claim: &Claim, purpose: Purpose)
    -> Result<Option<LeaseRow>, BackendError>;

    /// Reads the rows of all these claims.
    async fn look_at_all(&self, claims: &[Claim]) -> Result<Vec<Option<LeaseRow>>, BackendError>;

    /// Creates a missing row.
    async fn make(&self, key: &LockKey) -> Result<(), BackendError>;

    /// Changes the row if it is unchanged since it was read; false if not.
    async fn exchange(
        &self,
        claim: &Claim,
        old: &LeaseRow,
        new: &NewRow,
        purpose: Purpose,
    ) -> Result<bool, BackendError>;

    /// Changes all of these rows for acquires, in order, if each is unchanged since it was read; otherwise
    /// changes none and returns false. No row stays locked while the store waits for another message from this
    /// process, which may be paused.
    async fn exchange_all(&self, changes: &[Change<'_>]) -> Result<bool, BackendError>;
}

impl LeaseRow {
    /// Does anybody share the key, or wait for it in order?
    pub(crate) fn has_group(&self) -> bool {
        self.group.is_some() && self.group_until > self.now
    }

    /// Is the lock reserved for a waiter?
    fn is_reserved(&self) -> bool {
        self.expires > self.now && self.owner.is_reserved()
    }

    /// The record in the row, including expired holds.
    fn entry(&self, key: &LockKey) -> Result<Record, BackendError> {
        let group = self.group.as_deref().filter(|_| self.has_group());
        let group = group.map(Record::from_text).transpose();
        let entry = group.map_err(|unreadable| unreadable.explain(key))?.unwrap_or_default();
        Ok(self.with_owner_in(entry))
    }

    /// The same for callers that only read, or that end all holds. A group that cannot be read counts as a hold
    /// that excludes others until it expires.
    fn entry_as_seen(&self) -> Record {
        let group = self.group.as_deref().filter(|_| self.has_group());
        let entry = group.map(Record::from_text).transpose().unwrap_or_else(|_| {
            let unknown = Grant {
                owner: None,
                mode: Mode::Exclusive,
                token: self.token,
                ends: self.group_until,
                revoked: false,
                client_info: None,
            };
            Some(Record { granted: vec![unknown], ..Record::default() })
        });
        if self.is_reserved() {
            // Nobody holds it yet.
            return entry.unwrap_or_default();
        }
        self.with_owner_in(entry.unwrap_or_default())
    }

    /// The record, including the holder of the row's own lease.
    fn with_owner_in(&self, mut entry: Record) -> Record {
        if self.expires > self.now {
            entry.granted.push(Grant {
                owner: self.owner.id(),
                mode: Mode::Exclusive,
                token: self.token,
                ends: self.expires,
                revoked: self.owner.is_revoked(),
                client_info: self.client_info.clone(),
            });
        }
        entry
    }

    /// The row with this record in it.
    fn with(&self, mut entry: Record) -> NewRow {
        let last_token = entry.granted.iter().map(|grant| grant.token).fold(self.token, u64::max);
        let alone = entry.granted.iter().position(|grant| grant.mode == Mode::Exclusive);
        let alone = alone.map(|index| entry.granted.remove(index));
        let group_until = entry.lasts_until(self.now);
        let group = (!entry.is_empty()).then(|| entry.to_text());
        let free = NewRow {
            owner: RowOwner::default(),
            client_info: None,
            token: last_token,
            expires: self.expires.min(self.now),
            group,
            group_until,
        };
        match alone {
            Some(Grant { owner, ends: expires, revoked, client_info, .. }) => {
                let owner = self.owner.with_owner(owner, revoked);
                NewRow { owner, client_info, expires, ..free }
            }
            None => free,
        }
    }

    /// The rest of its lease.
    #[cfg(feature = "sqlite")]
    pub(crate) fn left(&self) -> Duration {
        Duration::from_micros(self.expires.saturating_sub(self.now))
    }

    /// The holder of the key; one of them, if several share it.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let mut entry = self.entry_as_seen();
        entry.expire(self.now);
        Some(entry.granted.first()?.holder(self.now))
    }

    /// The key's state for operators.
    pub(crate) fn state(&self, key: LockKey) -> LockState {
        let mut state = self.entry_as_seen().state(key, self.now);
        if self.is_reserved() {
            let owner = self.owner.reserved_for();
            state.waiters.insert(0, Waiter::new(owner, Mode::Exclusive, self.client_info.clone()));
        }
        state
    }

    /// The tokens of the holders. If one disappears, a retry is worthwhile.
    pub(crate) fn holders(&self) -> Vec<u64> {
        let mut entry = self.entry_as_seen();
        entry.expire(self.now);
        entry.granted.iter().map(|grant| grant.token).collect()
    }
}

/// The tokens of a key's holders.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) async fn holders(rows: &impl RowStore, claim: &Claim) -> Result<Vec<u64>, BackendError> {
    Ok(rows.look(claim, Purpose::Acquire).await?.map(|row| row.holders()).unwrap_or_default())
}

/// Acquires the key beside others, or a position in the queue.
pub(crate) async fn acquire(rows: &impl RowStore, claim: &Claim) -> Result<Attempt, BackendError> {
    for _ in 0..TRIES {
        let Some(row) = rows.look(claim, Purpose::Acquire).await? else {
            rows.make(&claim.key).await?;
            continue;
        };
        if row.given_up {
            return Ok(Attempt::busy(None));
        }
        let last_token = || row.now.max(row.token + 1) + u64::from(claim.more_tokens());
        let is_reserved = row.is_reserved() && row.owner.reserved_for() == Some(claim.owner);
        let decide = |entry: &mut Record| {
            if is_reserved {
                // Its own reservation, which comes last, does not exclude it.
                entry.granted.pop();
            }
            let verdict = entry.acquire(claim, row.now, last_token);
            (verdict, entry.other_permits(claim))
        };
        let decided = change(rows, claim, &row, Purpose::Acquire, decide).await?;
        let Some((verdict, other_permits)) = decided else {
            pause().await;
            continue;
        };
        let attempt = match verdict {
            Decision::Granted(last) => Attempt::granted_up_to(last, claim, validity_of(claim.ttl)),
            Decision::Busy { retry_in, queued: true } => Attempt::queued(retry_in),
            Decision::Busy { retry_in, queued: false } => Attempt::busy(retry_in),
        };
        return Ok(attempt.with_other_permits(other_permits));
    }
    Err(contended(&claim.key))
}

/// Acquires all of these keys, which are sorted, or none.
pub(crate) async fn acquire_set(
    rows: &impl RowStore,
    claims: &[Claim],
) -> Result<SetAttempt, BackendError> {
    for _ in 0..TRIES {
        let mut looked_at = Vec::with_capacity(claims.len());
        for (row, claim) in rows.look_at_all(claims).await?.into_iter().zip(claims) {
            match row {
                Some(row) => looked_at.push(row),
                None => rows.make(&claim.key).await?,
            }
        }
        if looked_at.len() < claims.len() {
            continue;
        }
        if let Some(at) = looked_at.iter().position(|row| row.given_up) {
            return Ok(SetAttempt::busy(at, None, false));
        }
        let before = looked_at.iter().zip(claims).map(|(row, claim)| row.entry(&claim.key));
        let before = before.collect::<Result<Vec<Record>, _>>()?;
        let mut entries = before.clone();
        let parts = entries.iter_mut().zip(&looked_at).map(|(entry, row)| {
            let next_token = row.now.max(row.token + 1);
            Part { entry, now: row.now, next_token }
        });
        let verdict = record::acquire_set(&mut parts.collect::<Vec<_>>(), claims);
        let mut both = entries.iter().zip(claims);
        let other_permits = both.find_map(|(entry, claim)| entry.other_permits(claim));
        let all = entries.into_iter().zip(before).zip(looked_at.iter().zip(claims));
        let different = all.filter(|((entry, before), _)| entry != before);
        let changes: Vec<_> = different
            .map(|((entry, _), (old, claim))| Change { claim, old, new: old.with(entry) })
            .collect();
        if changes.is_empty() || rows.exchange_all(&changes).await? {
            let ttl = claims.iter().map(|claim| claim.ttl).min().unwrap_or_default();
            let attempt = SetAttempt::of(verdict, validity_of(ttl));
            return Ok(attempt.with_other_permits(other_permits));
        }
        pause().await;
    }
    Err(contended(&claims[0].key))
}

/// Renews the lease of a holder that shares the key.
pub(crate) async fn renew(rows: &impl RowStore, claim: &Claim) -> Result<Renewal, BackendError> {
    for _ in 0..TRIES {
        let Some(row) = rows.look(claim, Purpose::Renew).await? else {
            return Ok(Renewal::NotHeld);
        };
        let decide = |entry: &mut Record| entry.renew(claim, row.now);
        match change(rows, claim, &row, Purpose::Renew, decide).await? {
            Some(true) => return Ok(Renewal::Renewed { validity: validity_of(claim.ttl) }),
            Some(false) => return Ok(Renewal::NotHeld),
            None => pause().await,
        }
    }
    Err(contended(&claim.key))
}

/// Ends the lease of a holder that shares the key, or leaves the queue.
pub(crate) async fn release(
    rows: &impl RowStore,
    claim: &Claim,
    release: Release,
) -> Result<Released, BackendError> {
    for _ in 0..TRIES {
        let Some(row) = rows.look(claim, Purpose::Release).await? else {
            return Ok(Released::NotHeld);
        };
        let decide = |entry: &mut Record| entry.release(claim, release, row.now);
        match change(rows, claim, &row, Purpose::Release, decide).await? {
            Some(released) => return Ok(released),
            None => pause().await,
        }
    }
    Err(contended(&claim.key))
}

/// Ends all leases of the key; false if there was none.
pub(crate) async fn force_release(
    rows: &impl RowStore,
    key: &LockKey,
) -> Result<bool, BackendError> {
    let nobody = Claim::new(key.clone(), Duration::ZERO);
    for _ in 0..TRIES {
        let Some(row) = rows.look(&nobody, Purpose::Release).await? else { return Ok(false) };
        let decide = |entry: &mut Record| {
            entry.expire(row.now);
            !std::mem::take(&mut entry.granted).is_empty()
        };
        let seen = row.entry_as_seen();
        match change_from(seen, rows, &nobody, &row, Purpose::Release, decide).await? {
            Some(held) => return Ok(held),
            None => pause().await,
        }
    }
    Err(contended(key))
}

/// Revokes all holds of the key, so that they are no longer renewed; false if there was none.
pub(crate) async fn revoke(rows: &impl RowStore, key: &LockKey) -> Result<bool, BackendError> {
    let nobody = Claim::new(key.clone(), Duration::ZERO);
    for _ in 0..TRIES {
        let Some(row) = rows.look(&nobody, Purpose::Release).await? else { return Ok(false) };
        let decide = |entry: &mut Record| {
            // A reservation comes last, and is nobody's hold.
            let reservation = if row.is_reserved() { entry.granted.pop() } else { None };
            let held = entry.revoke(row.now);
            entry.granted.extend(reservation);
            held
        };
        match change(rows, &nobody, &row, Purpose::Renew, decide).await? {
            Some(held) => return Ok(held),
            None => pause().await,
        }
    }
    Err(contended(key))
}

/// Decides, and writes the changes to the row; `None` if the row was changed by another client first.
async fn change<T>(
    rows: &impl RowStore,
    claim: &Claim,
    row: &LeaseRow,
    purpose: Purpose,
    decide: impl FnOnce(&mut Record) -> T,
) -> Result<Option<T>, BackendError> {
    change_from(row.entry(&claim.key)?, rows, claim, row, purpose, decide).await
}

/// The same, starting from a given record.
async fn change_from<T>(
    before: Record,
    rows: &impl RowStore,
    claim: &Claim,
    row: &LeaseRow,
    purpose: Purpose,
    decide: impl FnOnce(&mut Record) -> T,
) -> Result<Option<T>, BackendError> {
    let mut entry = before.clone();
    let decision = decide(&mut entry);
    if entry == before {
        return Ok(Some(decision));
    }
    let written = rows.exchange(claim, row, &row.with(entry), purpose).await?;
    Ok(written.then_some(decision))
}

/// Pauses for a random time, so that contending clients do not retry all at once.
async fn pause() {
    tokio::time::sleep(Duration::from_micros(rand::random_range(0..2_000))).await;
}

fn contended(key: &LockKey) -> BackendError {
    BackendError::transient(format!("lock `{key}`: others changed its row {TRIES} times in a row"))
}
