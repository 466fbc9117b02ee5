//! What one acquire asks the store for: one key, or several keys in one step.

use std::num::NonZeroU32;
use std::time::Duration;

use super::request::Request;
use crate::backend::{Answer, Attempt, Backend, Claim, SetAttempt};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::token::FencingToken;

type Asked<'a, T> = Answer<'a, Result<T, BackendError>>;

/// One key or a set of keys. The acquire loop is the same for both.
pub(super) trait Wanted: Copy {
    /// One claim for each request, in their order.
    type Claims: AsRef<[Claim]> + AsMut<[Claim]> + IntoIterator<Item = Claim>;
    /// What each claim was granted, in their order.
    type Tokens: IntoIterator<Item = Tokens> + AsRef<[Tokens]>;
    type Attempt: Into<Reply<Self::Tokens>> + Unpin;

    fn requests(&self) -> &[Request<'_>];

    /// Claims of new owners.
    fn claims(&self, now: &Moment) -> Self::Claims;

    /// Whether the store has a queue of its own for this.
    fn has_queue(&self) -> bool;

    /// How many tokens each claim can use if so many tasks wait behind it.
    fn token_block(&self, waiters: usize) -> u16;

    /// Attempts once to acquire every key, without waiting for a holder.
    fn try_acquire<'a>(
        store: &'a dyn Backend,
        claims: &'a Self::Claims,
    ) -> Asked<'a, Self::Attempt>;

    /// Waits in the store's own queue. Called only where there is one.
    fn acquire_queued<'a>(
        store: &'a dyn Backend,
        claims: &'a Self::Claims,
    ) -> Asked<'a, Self::Attempt>;
}

/// A store's answer, in the form that the acquire loop works with.
pub(super) struct Reply<T> {
    pub(super) outcome: Outcome<T>,
    pub(super) in_doubt: bool,
    pub(super) other_permits: Option<NonZeroU32>,
}

pub(super) enum Outcome<T> {
    Granted {
        tokens: T,
        validity: Duration,
    },
    Busy {
        /// Index of the busy key.
        at: usize,
        expires_in: Option<Duration>,
        queued: bool,
    },
}

impl<T> Outcome<T> {
    pub(super) const fn is_queued(&self) -> bool {
        matches!(self, Self::Busy { queued: true, .. })
    }
}

/// What one claim was granted: consecutive tokens.
#[derive(Clone, Copy)]
pub(super) struct Tokens {
    pub(super) first: FencingToken,
    /// How many, at least one.
    pub(super) block: u16,
}

impl Tokens {
    pub(super) fn last(self) -> FencingToken {
        FencingToken::new(self.first.get().saturating_add(u64::from(self.block) - 1))
    }
}

#[derive(Clone, Copy)]
pub(super) struct OneKey<'a>(pub(super) &'a Request<'a>);

impl Wanted for OneKey<'_> {
    type Claims = [Claim; 1];
    type Tokens = [Tokens; 1];
    type Attempt = Attempt;

    fn requests(&self) -> &[Request<'_>] {
        std::slice::from_ref(self.0)
    }

    fn claims(&self, now: &Moment) -> [Claim; 1] {
        [self.0.claim(now)]
    }

    fn has_queue(&self) -> bool {
        self.0.backend.capabilities.queue
    }

    /// As many as the lease may serve holds, and not only for those that wait now: more tasks may come, or come back, while
    /// the lease is passed on.
    fn token_block(&self, waiters: usize) -> u16 {
        if waiters == 0 { 1 } else { 1 + self.0.handover().passes() }
    }

    fn try_acquire<'a>(store: &'a dyn Backend, [claim]: &'a [Claim; 1]) -> Asked<'a, Attempt> {
        store.try_acquire(claim)
    }

    fn acquire_queued<'a>(store: &'a dyn Backend, [claim]: &'a [Claim; 1]) -> Asked<'a, Attempt> {
        store.acquire_queued(claim)
    }
}

/// Several keys of one backend, in their order. A store's own queue takes only one key at a time.
#[derive(Clone, Copy)]
pub(super) struct KeySet<'a>(pub(super) &'a [Request<'a>]);

impl Wanted for KeySet<'_> {
    type Claims = Vec<Claim>;
    type Tokens = Vec<Tokens>;
    type Attempt = SetAttempt;

    fn requests(&self) -> &[Request<'_>] {
        self.0
    }

    fn claims(&self, now: &Moment) -> Vec<Claim> {
        self.0.iter().map(|request| request.claim(now)).collect()
    }

    fn has_queue(&self) -> bool {
        false
    }

    /// The leases of a set are not passed on.
    fn token_block(&self, _: usize) -> u16 {
        1
    }

    fn try_acquire<'a>(store: &'a dyn Backend, claims: &'a Vec<Claim>) -> Asked<'a, SetAttempt> {
        store.try_acquire_set(claims)
    }

    fn acquire_queued<'a>(store: &'a dyn Backend, claims: &'a Vec<Claim>) -> Asked<'a, SetAttempt> {
        Self::try_acquire(store, claims)
    }
}

impl From<Attempt> for Reply<[Tokens; 1]> {
    fn from(attempt: Attempt) -> Self {
        let (in_doubt, other_permits) = (attempt.in_doubt(), attempt.other_permits());
        let outcome = match attempt {
            Attempt::Granted { token, token_block, validity, .. } => {
                let mut tokens = Tokens { first: token, block: token_block.max(1) };
                if in_doubt {
                    // The copies of the request may have reserved different blocks, with the same end.
                    tokens = Tokens { first: tokens.last(), block: 1 };
                }
                Outcome::Granted { tokens: [tokens], validity }
            }
            Attempt::Busy { expires_in, queued, .. } => Outcome::Busy { at: 0, expires_in, queued },
        };
        Self { outcome, in_doubt, other_permits }
    }
}

impl From<SetAttempt> for Reply<Vec<Tokens>> {
    fn from(attempt: SetAttempt) -> Self {
        let (in_doubt, other_permits) = (attempt.in_doubt(), attempt.other_permits());
        let outcome = match attempt {
            SetAttempt::Granted { tokens, validity, .. } => {
                let tokens = tokens.into_iter().map(|first| Tokens { first, block: 1 }).collect();
                Outcome::Granted { tokens, validity }
            }
            SetAttempt::Busy { at, expires_in, queued, .. } => {
                Outcome::Busy { at, expires_in, queued }
            }
        };
        Self { outcome, in_doubt, other_permits }
    }
}
