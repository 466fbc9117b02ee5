//! A claim's key in the queue: how it gets there, what blocks it, and how its lease is kept while it waits.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Etcd;
use super::calls::{Awaited, Kept, OwnKey};
use super::names::Names;
use crate::backend::{Attempt, Claim, Mode, validity_of};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::lock_table::queue::Position;
use crate::stores::shared::node_queue::QueueView;
use crate::token::FencingToken;

/// For how long a lease provably lasts.
#[derive(Clone, Copy)]
pub(super) struct Validity {
    from: Moment,
    lasts: Duration,
}

/// What a claim finds ahead of its key.
pub(super) struct Ahead {
    /// The deletion that it has to wait for, and the revision of the store from which to watch for it. Without one the
    /// claim is admitted.
    pub(super) blocker: Option<(Awaited, i64)>,
    /// The number of permits of a key ahead, if it differs from the claim's own.
    pub(super) other_permits: Option<NonZeroU32>,
}

impl Etcd {
    /// The validity of a lease that a leader has renewed.
    pub(super) fn renewed_validity(&self, ttl: Duration) -> Duration {
        validity_of(ttl).saturating_sub(self.0.stale_leader)
    }

    /// Puts the claim's key into the queue, under its lease. A repeated claim finds the lease and the key that it has.
    pub(super) async fn join_queue(
        &self,
        claim: &Claim,
        names: &Names,
    ) -> Result<(OwnKey, Validity), BackendError> {
        let calls = &self.0.calls;
        let mut valid = Validity { from: Moment::now(), lasts: validity_of(claim.ttl) };
        if !calls.grant(names.lease, whole_seconds(claim.ttl)).await? {
            valid = self.keep(claim, names).await?;
        }
        let own = calls.put_in_queue(&names.own, &names.value, names.lease, &names.queue).await?;
        Ok((own, valid))
    }

    /// Renews the lease of a waiter.
    pub(super) async fn keep(
        &self,
        claim: &Claim,
        names: &Names,
    ) -> Result<Validity, BackendError> {
        let from = Moment::now();
        match self.0.calls.keep_alive(names.lease).await? {
            Kept::Kept => Ok(Validity { from, lasts: self.renewed_validity(claim.ttl) }),
            Kept::Gone => Err(self.0.calls.lapsed()),
        }
    }

    pub(super) async fn ahead(
        &self,
        claim: &Claim,
        names: &Names,
        own: &OwnKey,
    ) -> Result<Ahead, BackendError> {
        let calls = &self.0.calls;
        if claim.mode == Mode::Exclusive {
            // Every key ahead blocks it, so the last one is enough.
            let before = calls.predecessor(&names.queue, own.revision).await?;
            let blocker = before.map(|(key, read_at)| (Awaited::Key(key), read_at));
            return Ok(Ahead { blocker, other_permits: None });
        }
        let (keys, read_at) = calls.before(&names.queue, own.revision).await?;
        let QueueView { position, other_permits } = QueueView::of(claim.mode, keys);
        let awaited = match position {
            Position::Admitted => None,
            Position::Behind(blocker) => Some(Awaited::Key(blocker.key)),
            Position::Crowded => Some(Awaited::AnyOf(names.queue.clone().into_bytes())),
        };
        Ok(Ahead { blocker: awaited.map(|awaited| (awaited, read_at)), other_permits })
    }

    /// Waits for a deletion after this revision, and keeps the claim's lease meanwhile.
    pub(super) async fn until_gone(
        &self,
        claim: &Claim,
        names: &Names,
        awaited: Awaited,
        revision: i64,
    ) -> Result<(), BackendError> {
        let mut gone = std::pin::pin!(self.0.calls.until_deleted(awaited, revision));
        loop {
            tokio::select! {
                gone = &mut gone => return gone,
                () = tokio::time::sleep(claim.ttl / 3) => {
                    self.keep(claim, names).await?;
                }
            }
        }
    }

    /// Whether the claim's key exists as the claim put it.
    pub(super) async fn is_there(&self, names: &Names) -> Result<bool, BackendError> {
        let stored = self.0.calls.value(&names.own).await?;
        Ok(stored.is_some_and(|stored| stored == names.value.as_bytes()))
    }
}

/// A grant to a claim that asked at this moment.
pub(super) fn granted(own: &OwnKey, asked: Moment, valid: Validity) -> Attempt {
    Attempt::granted(token(own.revision), valid.from.since(&asked) + valid.lasts)
}

pub(super) fn token(revision: i64) -> FencingToken {
    FencingToken::new(revision.unsigned_abs())
}

/// A ttl in seconds, the unit of etcd's leases, rounded up.
pub(super) fn whole_seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(i64::MAX)
}
