//! The record of one key in a lock table: its holders, its waiters, and who may enter.
//!
//! It has the "granted group" and the "waiting queue" of a lock manager (Gray and Reuter, *Transaction
//! Processing: Concepts and Techniques*, chapter 8), with two changes for leases: a hold expires, and
//! the first waiter must regularly show that it is alive, because a dead one would block everybody
//! behind it.
//!
//! Stores that keep locks as data decide with it. Times are the store's own, in microseconds.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::backend::{Claim, Holder, LockState, Mode, Release, Released, Waiter as Seen};
use crate::client_info::ClientInfo;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// A moment of the store's clock, in microseconds.
pub(crate) type Micros = u64;

/// The first waiter counts as absent if it has not shown itself for this long. Others pass it then.
const ABSENT: Micros = 400_000;

/// How long an absent waiter keeps its position in case it shows itself again.
const KEPT: Micros = 10_000_000;

/// How often the first waiter shows itself.
const HEARTBEAT: Micros = 100_000;

/// If the first waiter has not shown itself for this long, all waiters are considered gone.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
const FORGOTTEN: Micros = 2_000_000;

/// How often the other waiters check whether they have become the first.
const POLL: Duration = Duration::from_millis(200);

/// The holders and waiters of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) granted: Vec<Grant>,
    pub(crate) queue: Vec<Waiter>,
    /// When the first waiter that is not absent last showed itself, or became the first.
    pub(crate) head_seen: Micros,
}

/// A holder's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// `None` while a released hold is kept for the rest of its `min_hold`.
    pub(crate) owner: Option<OwnerId>,
    pub(crate) mode: Mode,
    /// Of a block, the last one.
    pub(crate) token: u64,
    pub(crate) ends: Micros,
    /// A revoked hold is no longer renewed.
    pub(crate) revoked: bool,
    pub(crate) client_info: Option<ClientInfo>,
}

/// A waiter in the store's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) owner: OwnerId,
    pub(crate) mode: Mode,
    /// Nobody overtakes a fair waiter. One that is not fair is a writer; only readers and permits wait for it.
    pub(crate) fair: bool,
    /// It was the first and did not show itself.
    pub(crate) absent: bool,
    pub(crate) gives_up: Micros,
    pub(crate) client_info: Option<ClientInfo>,
}

/// The result of an acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// With this token; of a block, the last one.
    Granted(u64),
    /// When to retry without a notification, and whether the claim has a queue position.
    Busy { retry_in: Option<Duration>, queued: bool },
}

/// Whether a claim may enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// It may enter, or already holds the key.
    Open,
    Closed,
    /// Its hold was revoked, with this much of the lease left.
    Revoked(Duration),
}

/// The result of an acquire of several keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetDecision {
    /// With these tokens.
    Granted(Vec<u64>),
    Busy {
        /// The index of the key that is busy.
        at: usize,
        retry_in: Option<Duration>,
        queued: bool,
    },
}

/// One record of a set, with the current time and the token that it would grant.
pub(crate) struct Part<'a> {
    pub(crate) entry: &'a mut Record,
    pub(crate) now: Micros,
    pub(crate) next_token: u64,
}

/// Acquires all of these keys, which are sorted, or none.
///
/// A set that waits in queues joins the queue of the first key that it may not enter, and reserves the keys before
/// that one by positions in their queues. This is like acquiring one key after the other, but without leases, so two
/// waiting sets never wait for each other.
pub(crate) fn acquire_set(parts: &mut [Part<'_>], claims: &[Claim]) -> SetDecision {
    let each = parts.iter_mut().zip(claims);
    let offers: Vec<_> = each.map(|(part, claim)| part.entry.offer(claim, part.now)).collect();
    let each = parts.iter_mut().zip(claims);
    let Some(at) = offers.iter().position(|offer| *offer != Offer::Open) else {
        let tokens = each.map(|(part, claim)| {
            let next_token = part.next_token;
            part.entry.enter(claim, part.now, || next_token)
        });
        return SetDecision::Granted(tokens.collect());
    };
    let mut retry_in = match offers[at] {
        Offer::Revoked(left) => Some(left),
        Offer::Open | Offer::Closed => None,
    };
    let mut queued = false;
    for (part, claim) in each.take(at + 1) {
        if part.entry.grant_of(&claim.owner).is_none()
            && let Decision::Busy { retry_in: next_look, queued: is_queued } =
                part.entry.wait(claim, part.now)
        {
            retry_in = retry_in.into_iter().chain(next_look).min();
            queued |= is_queued;
        }
    }
    SetDecision::Busy { at, retry_in, queued }
}

/// May one more holder enter beside the others?
pub(crate) fn fits(mode: Mode, mut others: impl Iterator<Item = Mode>) -> bool {
    match mode {
        Mode::Exclusive => others.next().is_none(),
        Mode::Shared => others.all(|other| other == Mode::Shared),
        Mode::Permits(limit) => {
            let mut counted = 0;
            others.all(|other| {
                counted += 1;
                matches!(other, Mode::Permits(_)) && counted < limit.get()
            })
        }
    }
}

impl Grant {
    pub(crate) fn holder(&self, now: Micros) -> Holder {
        let left = Duration::from_micros(self.ends.saturating_sub(now));
        Holder::new(self.owner, FencingToken::new(self.token), left)
            .with_mode(self.mode)
            .with_client_info(self.client_info.clone())
            .with_revoked(self.revoked)
    }
}

impl Waiter {
    /// Must a later claim let this waiter go first?
    fn goes_before(&self, claim: &Claim) -> bool {
        !self.absent && (self.fair || claim.mode != Mode::Exclusive)
    }
}

impl Record {
    /// Acquires the key, or a position in the queue if the claim waits there. `last_token` draws the last token of the
    /// claim's block.
    pub(crate) fn acquire(
        &mut self,
        claim: &Claim,
        now: Micros,
        last_token: impl FnOnce() -> u64,
    ) -> Decision {
        match self.offer(claim, now) {
            Offer::Open => Decision::Granted(self.enter(claim, now, last_token)),
            Offer::Revoked(left) => Decision::Busy { retry_in: Some(left), queued: false },
            Offer::Closed => self.wait(claim, now),
        }
    }

    /// Decides whether the claim may enter.
    fn offer(&mut self, claim: &Claim, now: Micros) -> Offer {
        self.expire(now);
        if let Some(own) = self.grant_of(&claim.owner) {
            let left = Duration::from_micros(own.ends - now);
            return if own.revoked { Offer::Revoked(left) } else { Offer::Open };
        }
        let position = self.mark_present(claim, now);
        if self.may_enter(claim, position) { Offer::Open } else { Offer::Closed }
    }

    /// Grants a key that is [open](Offer::Open). A repeated grant keeps its token.
    fn enter(&mut self, claim: &Claim, now: Micros, last_token: impl FnOnce() -> u64) -> u64 {
        let ends = now + micros(claim.ttl);
        if let Some(own) = self.grant_of(&claim.owner) {
            // A delayed request must not shorten the lease.
            own.ends = own.ends.max(ends);
            return own.token;
        }
        let token = last_token();
        self.leave_queue(&claim.owner, now);
        if self.granted.is_empty() {
            // Most keys have one holder at most, and a vector would begin with room for four.
            self.granted.reserve_exact(1);
        }
        self.granted.push(Grant {
            owner: Some(claim.owner),
            mode: claim.mode,
            token,
            ends,
            revoked: false,
            client_info: Some(claim.client_info.clone()),
        });
        token
    }

    /// Joins the queue if the claim waits there, and shows that it is alive.
    fn wait(&mut self, claim: &Claim, now: Micros) -> Decision {
        let position = self.queue.iter().position(|waiter| waiter.owner == claim.owner);
        let position = self.join_or_leave_queue(claim, position, now);
        Decision::Busy { retry_in: self.retry_in(position, now), queued: position.is_some() }
    }

    /// Waiters ahead of it in the queue count as if they had entered.
    fn may_enter(&self, claim: &Claim, position: Option<usize>) -> bool {
        let ahead = &self.queue[..position.unwrap_or(self.queue.len())];
        let ahead = ahead.iter().filter(|waiter| waiter.goes_before(claim));
        let held = self.granted.iter().map(|grant| grant.mode);
        fits(claim.mode, held.chain(ahead.map(|waiter| waiter.mode)))
    }

    /// The claim's position in the queue, if it has one. It is no longer absent.
    fn mark_present(&mut self, claim: &Claim, now: Micros) -> Option<usize> {
        let position = self.queue.iter().position(|waiter| waiter.owner == claim.owner)?;
        if std::mem::take(&mut self.queue[position].absent) {
            self.queue[position].gives_up = now + micros(claim.wait_left);
            if self.head() == Some(position) {
                self.head_seen = now;
            }
        }
        Some(position)
    }

    /// Joins or leaves the queue as needed; returns the claim's position from now on, if any.
    fn join_or_leave_queue(
        &mut self,
        claim: &Claim,
        position: Option<usize>,
        now: Micros,
    ) -> Option<usize> {
        if claim.wait_left.is_zero() {
            self.leave_queue(&claim.owner, now);
            return None;
        }
        // A writer behind readers would wait forever if new ones kept arriving.
        let shared = self.granted.iter().any(|grant| grant.mode != Mode::Exclusive);
        let is_writer = claim.mode == Mode::Exclusive && shared;
        let position = match position {
            None if claim.fair || is_writer => {
                if self.head().is_none() {
                    self.head_seen = now;
                }
                self.queue.push(Waiter {
                    owner: claim.owner,
                    mode: claim.mode,
                    fair: claim.fair,
                    absent: false,
                    gives_up: now + micros(claim.wait_left),
                    client_info: Some(claim.client_info.clone()),
                });
                Some(self.queue.len() - 1)
            }
            position => position,
        };
        if self.is_head(position) && now.saturating_sub(self.head_seen) >= HEARTBEAT {
            self.head_seen = now;
        }
        position
    }

    fn head(&self) -> Option<usize> {
        self.queue.iter().position(|waiter| !waiter.absent)
    }

    fn is_head(&self, position: Option<usize>) -> bool {
        position.is_some() && self.head() == position
    }

    /// When to retry without a notification: when a lease ends, when the first waiter becomes absent, or
    /// when the first waiter has to show itself.
    fn retry_in(&self, position: Option<usize>, now: Micros) -> Option<Duration> {
        let lease = self.granted.iter().map(|grant| grant.ends.saturating_sub(now)).min();
        let lease = lease.map(Duration::from_micros);
        let queue = if self.head().is_none() {
            None
        } else if self.is_head(position) {
            Some(Duration::from_micros(HEARTBEAT))
        } else {
            let passed = (self.head_seen + ABSENT).saturating_sub(now);
            Some(POLL.min(Duration::from_micros(passed)))
        };
        lease.into_iter().chain(queue).min()
    }

    /// The number of permits of another holder or waiter, if it differs from the claim's.
    pub(crate) fn other_permits(&self, claim: &Claim) -> Option<NonZeroU32> {
        let held = self.granted.iter().map(|grant| grant.mode);
        claim.mode.other_permits(held.chain(self.queue.iter().map(|waiter| waiter.mode)))
    }

    /// Renews the lease; false if this owner has none.
    pub(crate) fn renew(&mut self, claim: &Claim, now: Micros) -> bool {
        self.expire(now);
        match self.grant_of(&claim.owner) {
            Some(own) if !own.revoked => {
                own.ends = own.ends.max(now + micros(claim.ttl));
                true
            }
            Some(_) | None => false,
        }
    }

    /// Revokes all holds, so that they are no longer renewed; false if there is none.
    pub(crate) fn revoke(&mut self, now: Micros) -> bool {
        self.expire(now);
        let mut held = false;
        for grant in self.granted.iter_mut().filter(|grant| grant.owner.is_some()) {
            grant.revoked = true;
            held = true;
        }
        held
    }

    /// The key's state for operators.
    pub(crate) fn state(&mut self, key: LockKey, now: Micros) -> LockState {
        self.expire(now);
        let holders = self.granted.iter().map(|grant| grant.holder(now)).collect();
        let waiters = self
            .queue
            .iter()
            .map(|waiter| Seen::new(Some(waiter.owner), waiter.mode, waiter.client_info.clone()));
        LockState::new(key, holders, waiters.collect())
    }

    /// Releases the lease, and leaves the queue.
    pub(crate) fn release(&mut self, claim: &Claim, release: Release, now: Micros) -> Released {
        self.expire(now);
        self.leave_queue(&claim.owner, now);
        let is_own = |grant: &Grant| grant.owner == Some(claim.owner);
        let Some(index) = self.granted.iter().position(is_own) else {
            return Released::NotHeld;
        };
        match release.keep_for {
            Some(rest) => {
                let own = &mut self.granted[index];
                own.owner = None;
                own.revoked = false;
                own.ends = now + micros(rest);
            }
            None => {
                self.granted.remove(index);
            }
        }
        Released::Released
    }

    /// Removes expired holders, and waiters whose wait is over. The first waiter becomes absent if it has not
    /// shown itself.
    pub(crate) fn expire(&mut self, now: Micros) {
        self.granted.retain(|grant| grant.ends > now);
        let head = self.head().map(|head| self.queue[head].owner);
        self.queue.retain(|waiter| waiter.gives_up > now);
        let Some(position) = self.head() else { return };
        if head != Some(self.queue[position].owner) {
            self.head_seen = now;
        } else if now.saturating_sub(self.head_seen) >= ABSENT {
            let waiter = &mut self.queue[position];
            waiter.absent = true;
            waiter.gives_up = waiter.gives_up.min(now + KEPT);
            self.head_seen = now;
        }
    }

    /// Until when the record matters: a queue whose first waiter does not show itself is considered empty.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn lasts_until(&self, now: Micros) -> Micros {
        let held = self.granted.iter().map(|grant| grant.ends);
        let waited = self.queue.iter().map(|waiter| waiter.gives_up.min(now + FORGOTTEN));
        held.chain(waited).max().unwrap_or(now)
    }

    /// Has it neither holders nor waiters?
    pub(crate) fn is_empty(&self) -> bool {
        self.granted.is_empty() && self.queue.is_empty()
    }

    pub(crate) fn grant_of(&mut self, owner: &OwnerId) -> Option<&mut Grant> {
        self.granted.iter_mut().find(|grant| grant.owner == Some(*owner))
    }

    fn leave_queue(&mut self, owner: &OwnerId, now: Micros) {
        if let Some(position) = self.queue.iter().position(|waiter| waiter.owner == *owner) {
            let was_head = self.is_head(Some(position));
            self.queue.remove(position);
            if was_head {
                self.head_seen = now;
            }
        }
    }
}

pub(crate) fn micros(duration: Duration) -> Micros {
    // Longer than any wait, and small enough that a time plus this is still exact in floating point.
    const FOREVER: Micros = 1 << 52;
    Micros::try_from(duration.as_micros()).unwrap_or(FOREVER).min(FOREVER)
}

#[cfg(test)]
mod tests;
